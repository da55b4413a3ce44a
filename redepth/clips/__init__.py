"""Clips: their frames are refined one after the other, each tied to the last one."""
