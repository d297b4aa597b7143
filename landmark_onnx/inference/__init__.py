"""From images to answers: preprocessing, batching, the pipeline, postprocessing."""
