"""The part of a session that certifies finished tasks."""

from __future__ import annotations

from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.session.folder import SessionFolder
from fgadahat_hooks.tasks.certificate import Certificate
from fgadahat_hooks.verify.audit import AuditReport, audit
from fgadahat_hooks.verify.certify import certify


class CertifiedSession(SessionFolder):
    """A session that can tell whether one bit of its finished tasks has changed since they were certified."""

    @property
    def certificate(self) -> Certificate | None:
        """What was certified, and when saved or loaded is kept with the session; None before `certify`."""
        return self._sequence.certificate

    def certify(self, inputs: ExampleInputs | None = None, *, renew: bool = False) -> Certificate:
        """Write down digests (SHA-256) of all finished tasks, which `audit` compares later, after load as well.

        Of each task: its outputs on canary inputs, in evaluation mode under its own mask; the entries of gated weights
        that it reads; its heads, norms and other tensors of its own; its masks; and what is frozen or shared. The
        canary inputs are kept with them, in saved folders too: `certificate.input_bytes`. It is no signature: who can
        write the folder can certify anew.

        Args:
            inputs: The canary inputs, as for `attach`, but no function: a small batch of real data. When left out,
                those of the last certificate, or of the trace.
            renew: Whether to accept what has changed of tasks that were certified before.

        Returns:
            The certificate; `session.certificate` from now on.

        Raises:
            AuditError: A task that was certified before has changed, and `renew` is not set.
            BadCallError: The inputs cannot be kept, or finished tasks give no finite outputs on them, or others on a
                second call.
            NoTaskError: No task is finished.
            TaskRunningError: A task is running.
            TraceError: The forward raised on the inputs.
        """
        self._attached.check_attached()
        self._sequence.check_kept("when the session was certified")
        self._sequence.certificate = certify(self._sequence, inputs, renew, self.plan.leaks)
        return self._sequence.certificate

    def audit(self) -> AuditReport:
        """Compare all certified tasks with their digests, bit by bit.

        Use it where a model is trained further by others or by night: load the folder, audit, and let it fail. Nothing
        is put back before the comparison. On another device, with another torch or another number of threads, outputs
        may differ by rounding; then what the tasks read is still compared exactly, and the report says so.

        Returns:
            What was compared; print it.

        Raises:
            AuditError: Something has changed; names tasks and tensors.
            NoTaskError: There is no certificate.
            TaskRunningError: A task is running.
        """
        self._attached.check_attached()
        return audit(self._sequence, self.plan.leaks)
