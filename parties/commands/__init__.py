"""What the command line offers, one module for each group of commands."""
