"""Continual learning on real data: streams, methods, tuning on validation, tables and figures."""
