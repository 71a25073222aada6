"""Measurements of what training costs."""
