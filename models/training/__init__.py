"""What the recipes of the trained models share."""
