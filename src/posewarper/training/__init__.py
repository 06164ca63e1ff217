"""Training: the loop and its steps, samples, random crops, recipes, own clips, pseudo-labels."""
