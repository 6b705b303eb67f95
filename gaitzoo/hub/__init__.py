"""Models by name, files of weights, and the Hugging Face Hub."""
