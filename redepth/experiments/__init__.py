"""The studies of the paper as commands: arms of a preset compared on the same images."""
