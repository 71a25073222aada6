"""What keeps finished tasks: heads and norms per task, the hooks around optimizer steps, guards, and the plan.

Whoever writes a weight that a finished task uses is stopped here, or undone. How a task begins and ends is in `tasks`;
the rate of each weight is computed in `callbacks`.
"""
