"""What the commands of the project do, one module each."""
