"""The studies of the paper as commands: what is compared, on which images, and what came out."""
