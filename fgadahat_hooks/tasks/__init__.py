"""One task from begin to end, and what can be asked of finished ones.

What belongs here knows one attached model and its tasks. What stops a write to a protected weight is in `protection`;
the session is above and is never imported.
"""
