"""Models learn five tasks in a row, and each task alone, over kinds of models, learning rates and epochs."""
