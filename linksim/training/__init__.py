"""Training: data drawn on the fly, tasks, and one loop for all of them."""
