"""The one owner of hook handles and of everything else that must be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class HookSet:
    """Installs hooks and changes, and takes all of them back in reverse order.

    `close` may be called any number of times. Used as a context manager, an exception takes everything back.
    """

    def __init__(self) -> None:
        """Start with nothing installed."""
        self._stack = ExitStack()

    def add(self, handle: RemovableHandle) -> None:
        """Own a handle that torch returned."""
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

    def load_pre(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """Register a hook that runs before values are loaded into a module; it gets no module."""
        self.add(module._register_load_state_dict_pre_hook(hook))  # the public name came with torch 2.5

    def attribute(self, module: nn.Module, name: str, value: object) -> None:
        """Put a plain attribute beside a module's own, never registered as a parameter or child."""
        module.__dict__[name] = value
        self.undo(module.__dict__.pop, name, None)

    def child(self, parent: nn.Module, name: str, module: nn.Module) -> None:
        """Register a child module."""
        parent.add_module(name, module)
        self.undo(parent._modules.pop, name, None)

    def close(self) -> None:
        """Take everything back, newest first."""
        self._stack.close()

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[HookSet]:
        """Give a set that closes at the end of the block, also on an error."""
        hooks = cls()
        try:
            yield hooks
        finally:
            hooks.close()
