"""How good answers are: metrics of Google Landmarks and of the revisited Oxford and Paris, and the files they read."""
