"""Test-time optimisation: the parameters, the objectives and the loop."""
