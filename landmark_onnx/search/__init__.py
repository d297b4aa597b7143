"""Finding the nearest of many embeddings, and what is done with the neighbours afterwards."""
