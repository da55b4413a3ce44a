"""Procedural scenes seen by a pinhole camera: rooms, tables, streets, terrain, in miniature."""
