"""`HookSet`: owns hook handles and every other change that must be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class HookSet:
    """Installs hooks and other changes, and undoes all of them in reverse order on `close`.

    `close` may be called any number of times. `temporary` closes at the end of a `with` block, also on an error.
    """

    def __init__(self) -> None:
        """Start with nothing installed."""
        self._stack = ExitStack()

    def add(self, handle: RemovableHandle) -> None:
        """Take over a handle that torch returned; `close` removes it."""
        self._stack.callback(handle.remove)

    def undo(self, function: Callable[..., object], *args: object) -> None:
        """Call `function(*args)` on close."""
        self._stack.callback(function, *args)

    def forward_pre(
        self, module: nn.Module, hook: Callable[..., Any], *, first: bool = False, kwargs: bool = False
    ) -> None:
        """Register a forward pre-hook; with `first` it runs before those already there."""
        self.add(module.register_forward_pre_hook(hook, prepend=first, with_kwargs=kwargs))

    def forward(
        self,
        module: nn.Module,
        hook: Callable[..., Any],
        *,
        always: bool = False,
        first: bool = False,
        kwargs: bool = False,
    ) -> None:
        """Register a forward hook; with `always` it also runs when the forward raises."""
        self.add(module.register_forward_hook(hook, always_call=always, prepend=first, with_kwargs=kwargs))

    def accumulated(self, parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> None:
        """Register a hook that runs after a gradient was added to a parameter's `.grad`."""
        self.add(parameter.register_post_accumulate_grad_hook(hook))

    @staticmethod
    def gradient(tensor: Tensor, hook: Callable[[Tensor], None]) -> None:
        """Register a hook that sees the gradient of an intermediate tensor, and that lives as long as this does."""
        tensor.register_hook(hook)

    def load_pre(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """Register a hook that runs before a state dict is loaded into a module; it does not get the module."""
        self.add(module._register_load_state_dict_pre_hook(hook))  # the public name came with torch 2.5

    def attribute(self, module: nn.Module, name: str, value: object) -> None:
        """Set a plain attribute on a module, without registering it as a parameter, buffer or child."""
        module.__dict__[name] = value
        self.undo(module.__dict__.pop, name, None)

    def child(self, parent: nn.Module, name: str, module: nn.Module) -> None:
        """Register a child module."""
        parent.add_module(name, module)
        self.undo(parent._modules.pop, name, None)

    def close(self) -> None:
        """Undo everything, newest first."""
        self._stack.close()

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[HookSet]:
        """Yield a set that closes at the end of the block, also on an error."""
        hooks = cls()
        try:
            yield hooks
        finally:
            hooks.close()
