"""Stateless tensor maths, the only home of formulas. Needs torch alone."""
