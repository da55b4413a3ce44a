"""Test-time optimisation: what is learnable, what is minimised, and the loop."""
