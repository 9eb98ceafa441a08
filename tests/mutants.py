"""Update rules with one mistake each: what the laws of :mod:`insgd_lab.testing` must catch.

Every mistake shipped somewhere, or is easily made. A mutant is the right rule with one piece replaced: a rule of the
chain, the sensor, the optimizer's bookkeeping, or an option. It goes to the laws under the right rule's
capabilities, so a law that does not catch it holds for a wrong rule::

    python tests/mutants.py                 # every mutant, and the laws that caught it
    python tests/mutants.py '*adamnorm*'    # some of them

A docstring says the mistake in its first line, and then where it shipped or why it is easily made.
"""

from __future__ import annotations

import fnmatch
import math
import multiprocessing
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from tabulate import tabulate
from torch import Tensor, nn

import insgd_lab as lab
from insgd_lab.chain import Batch, Rule, Tensors
from insgd_lab.registry import OptimizerSpec, resolve_factory
from insgd_lab.rules.basic import DecoupledDecay, L2Penalty, LearningRate, Momentum, Projection
from insgd_lab.rules.input_power import InputPower, default_eps
from insgd_lab.rules.layerwise import LogNormGain, NormCorrection, TrustRatio
from insgd_lab.rules.moments import (
    Belief,
    FirstMoment,
    Friction,
    Rectified,
    SecondMoment,
    average_squares,
    divide_pending,
)
from insgd_lab.rules.reference import AccumulatingSecondMoment, DampedMomentum, ForgetfulNormCorrection
from insgd_lab.sensors import InputSensor
from insgd_lab.testing import laws


@dataclass(frozen=True)
class Mutant:
    """A wrong rule.

    Attributes:
        name: as a registry would have it.
        parent: the right rule, whose capabilities it claims.
        bug: the mistake in one line.
        factory: builds it, called as the right rule's factory is.
        expected: the laws whose job it is to catch it.
    """

    name: str
    parent: str
    bug: str
    factory: Callable[..., Any]
    expected: tuple[str, ...]

    @property
    def spec(self) -> OptimizerSpec:
        return replace(lab.get_optimizer(self.parent), name=self.name, factory=self.factory)


MUTANTS: dict[str, Mutant] = {}

SPELLED_OUT: dict[str, Mutant] = {}
"""Rules that are right, written tensor by tensor for mutants to change one piece of: no law may fail on these."""


def mutant(parent: str, *expected: str, table: dict[str, Mutant] = MUTANTS) -> Callable[[Any], Any]:
    """Decorator of a rule or sensor, which takes the place of the right one it derives from, or of a factory."""

    def decorate(wrong: Any) -> Any:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", wrong.__name__).replace("_", "-").lower()
        name = f"{'mutant' if table is MUTANTS else 'right'}-{parent}-{words}"
        bug = wrong.__doc__.splitlines()[0].rstrip(".")
        table[name] = Mutant(name, parent, bug, _factory(parent, wrong), expected)
        return wrong

    return decorate


spelled_out = partial(mutant, table=SPELLED_OUT)


class Failure(NamedTuple):
    """A law, the first case that broke it, and what was seen."""

    law: laws.Law
    case: laws.Case
    error: laws.LawBroken


def first_failure(spec: OptimizerSpec, law: laws.Law, examples: int = 20) -> Failure | None:
    """Try so many cases (`insgd-lab check` does 20), always the same; None where the law holds or does not apply.

    What it finds is not reduced to the smallest case, as `insgd-lab check` does: that takes most of the time.
    """
    if law.reason(spec) is not None:
        return None
    failures: list[Failure] = []

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
        phases=(Phase.generate,), verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(law.cases(spec))
    def hold(case: laws.Case) -> None:
        try:
            law.hold(spec, case)
        except laws.LawBroken as error:
            failures.append(Failure(law, case, error))
            raise

    with suppress(laws.LawBroken):
        hold()
    return failures[0] if failures else None


def _factory(parent: str, wrong: Any) -> Callable[..., Any]:
    if isinstance(wrong, type) and issubclass(wrong, (Rule, InputSensor)):
        return partial(_exchanged, parent, wrong)
    return wrong


def _right(name: str, params: Any, options: dict[str, Any]) -> Any:
    """The right optimizer, from its factory: options are passed as the laws passed them."""
    return resolve_factory(lab.get_optimizer(name).factory)(params, **options)


def _exchanged(parent: str, wrong: type[Any], params: Any, **options: Any) -> Any:
    optimizer = _right(parent, params, options)
    right = next(base for base in wrong.__mro__ if base.__module__.startswith("insgd_lab."))
    if issubclass(wrong, InputSensor):
        rule = next(rule for rule in optimizer.rules if hasattr(rule, "sensor"))
        rule.sensor.__class__ = wrong
        for group in optimizer.param_groups:
            rule.join(group)
        return optimizer
    optimizer.rules = tuple(_as(wrong, rule) if type(rule) is right else rule for rule in optimizer.rules)
    return optimizer


def _as(wrong: type[Rule], rule: Rule) -> Rule:
    """The wrong rule with the right one's options."""
    return wrong(**{f.name: getattr(rule, f.name) for f in fields(rule)})


@contextmanager
def _under(batch: Batch, **options: Any) -> Iterator[None]:
    """The batch has other hyper-parameters for a while."""
    group, batch.group = batch.group, {**batch.group, **options}
    yield
    batch.group = group


@contextmanager
def _holding(batch: Batch, **state: Tensors) -> Iterator[None]:
    """The batch has other buffers for a while."""
    own, batch.state = batch.state, {**batch.state, **state}
    yield
    batch.state = own


def _tensors(params: Any) -> Any:
    return params.parameters() if isinstance(params, nn.Module) else params


def _members(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], Tensor]]:
    return ((group, param) for group in optimizer.param_groups for param in group["params"])


# --------------------------------------------------------------------------------------------------------------------
# Bookkeeping: gradients, groups, options, checkpoints


@mutant("sgd", "gradients-untouched")
class DecaysInGradient(L2Penalty):
    """Weight decay is added to p.grad in place.

    `grad.add_(p, alpha=weight_decay)` is how several published optimizers began; gradient logging, clipping and
    accumulation over the next backward pass then see the decay too.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        torch._foreach_add_(update, batch.params, alpha=batch.group["weight_decay"])
        return update


@mutant("sgd", "gradients-untouched")
class BufferIsGradient(lab.SGD):
    """The momentum buffer begins as the gradient itself, not as a copy.

    `buf = state["momentum_buffer"] = grad` reads well; with `zero_grad(set_to_none=False)` the user's zeroing and
    the next backward pass write into the buffer, and the next step writes into p.grad.
    """

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for _, param in _members(self):
            state = self.state.get(param, {})
            if state.get("step") == 1 and torch.equal(state.get("momentum_buffer", torch.empty(0)), param.grad):
                state["momentum_buffer"] = param.grad
        return loss


@mutant("sgd", "closed-form")
class GradientsCached(lab.SGD):
    """The gradients of the first step are kept by reference and used for ever.

    Fused and flattened optimizers gather pointers once; `zero_grad()` sets p.grad to None, and the next backward
    pass makes new tensors.
    """

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        present = [(param, param.grad) for _, param in _members(self) if param.grad is not None]
        for param, grad in present:
            param.grad = self.__dict__.setdefault("_cache", {}).setdefault(param, grad)
        super().step()
        for param, grad in present:
            param.grad = grad
        return loss


@mutant("sgd", "no-gradient-no-change")
class DecaysWithoutGradient(lab.SGD):
    """Parameters without a gradient are decayed all the same.

    A decoupled decay in a loop of its own, before the loop that skips `p.grad is None`, forgets to skip them too:
    frozen layers shrink to zero.
    """

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        with torch.no_grad():
            for group, param in _members(self):
                if param.grad is None:
                    param.mul_(1 - group["lr"] * group["weight_decay"])
        return loss


@mutant("sgd", "schedule")
class RateOfConstruction(LearningRate):
    """The learning rate is the one given at construction: schedulers turn an idle wheel.

    Closures over hyper-parameters did this in a popular functional library, and cost it a 293-line wrapper to undo.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        batch.factor = batch.factor * self.lr
        return update


@mutant("sgd", "group-settings")
class FirstGroupsRate(LearningRate):
    """Every group takes the first group's learning rate.

    `lr = self.param_groups[0]["lr"]` before the loop is in many example repositories, where there is one group.
    """

    def prepare(self, batches: list[Batch]) -> None:
        for batch in batches:
            batch.group = {**batch.group, "lr": batches[0].group["lr"]}


@mutant("sgd", "tensor-rate")
class SharedTensorRate(lab.SGD):
    """A tensor learning rate given as the default is one tensor in all groups.

    torch.optim puts the very object into each group, so a scheduler that writes one group's rate in place
    writes them all.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        own = "lr" in param_group
        super().add_param_group(param_group)
        if not own:
            self.param_groups[-1]["lr"] = self.defaults["lr"]


@mutant("sgd", "maximize")
def maximize_ignored(params: Any, **options: Any) -> Any:
    """`maximize` is accepted for the signature's sake, and never read."""
    return lab.SGD(params, **{**options, "maximize": False})


@mutant("sgd", "maximize")
class MaximizesDecayToo(L2Penalty):
    """`maximize` negates the gradient after weight decay was added: the decay climbs as well.

    `update = -update if maximize` at the end of the step is the obvious, wrong place.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        sign = -1 if batch.group["maximize"] else 1
        with _under(batch, weight_decay=sign * batch.group["weight_decay"]):
            return super().__call__(update, batch)


@mutant("sgd", "skip")
class SkipsNothing(lab.SGD):
    """A group's `skip` is accepted and ignored."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.param_groups[-1]["skip"] = ()


@mutant("adam", "skip")
class SkipsNoDecoupledDecay(lab.Adam):
    """A group's `skip` leaves decoupled weight decay where it is.

    Decay that is not in the chain but a line of its own in the step is missed by whatever edits the chain.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["skip"] = tuple(name for name in group["skip"] if name != "DecoupledDecay")


@mutant("sgd", "closure")
class LosesLoss(lab.SGD):
    """`step(closure)` does not return the closure's loss.

    Wrappers of optimizers (look-ahead, sharpness-aware) forget `return loss` more often than not.
    """

    def step(self, closure: Any = None) -> Any:
        super().step(closure)


@mutant("insgd-l2", "resume")
class StateInParameterType(lab.INSGD):
    """A loaded state takes the parameter's type: bfloat16 rounds the power 1234567 to 1236992.

    It is what torch's own `load_state_dict` does to every slot but `step`.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.optim.Optimizer.load_state_dict(self, state_dict)


@mutant("adam", "resume")
class ForgetsSteps(lab.Adam):
    """The step count starts again after loading, and with it the bias correction.

    A count kept on the optimizer instead of in `state` is not in the checkpoint.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["step"] = torch.zeros_like(state["step"]) if isinstance(state["step"], Tensor) else 0


@mutant("adamnorm", "resume")
class NormNotSaved(lab.AdamNorm):
    """The running norm is not in the checkpoint.

    Kept in a dictionary beside `state`, it is missed by `state_dict`.
    """

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        kept = {n: {k: v for k, v in slots.items() if k != "exp_avg_norm"} for n, slots in saved["state"].items()}
        return {**saved, "state": kept}


# --------------------------------------------------------------------------------------------------------------------
# Momentum and decay


@mutant("sgd", "closed-form")
class DampenedFromStart(Momentum):
    """The first buffer is dampened too: b_1 = (1 - dampening) g_1.

    A buffer that starts at zero and one update line for all steps looks like a simplification of torch's two.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        dampening = batch.group["dampening"]
        buffers = super().__call__(update, batch)
        if "momentum_buffer" in batch.fresh:
            torch._foreach_mul_(buffers, 1 - (batch.group["momentum"] if dampening is None else dampening))
        return buffers


@mutant("sgd", "half-precision-state")
class BufferInHalfPrecision(Momentum):
    """The buffer of a half-precision parameter is in half precision: `torch.zeros_like(param)`.

    With 8 bits of mantissa, b + 0.001 g is b: training stalls without a word.
    """

    def slots(self, group: Any) -> Any:
        return {"momentum_buffer": torch.zeros_like}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        stored = batch.state["momentum_buffer"]
        with _holding(batch, momentum_buffer=[b.to(u.dtype) for b, u in zip(stored, update, strict=True)]):
            result = super().__call__(update, batch)
            torch._foreach_copy_(stored, batch.state["momentum_buffer"])
        return result


@mutant("sgd", "half-precision-steps")
class RoundsBeforeMomentum(Momentum):
    """The gradient of a half-precision parameter is rounded to its type again before the momentum.

    `grad.add(param, alpha=weight_decay).to(param.dtype)`: the sum was in float32, and what the cast takes from it is
    missing from the buffer. The buffer itself has the right type.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        narrow = [u.to(param.dtype).to(u.dtype) for u, param in zip(update, batch.params, strict=True)]
        return super().__call__(narrow, batch)


@mutant("sgd", "closed-form")
class NesterovWithoutFactor(Momentum):
    """Nesterov's form adds the whole buffer: g + b instead of g + momentum b."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        result = super().__call__(update, batch)
        if batch.group["nesterov"]:
            return list(torch._foreach_add(update, batch.state["momentum_buffer"]))
        return result


@mutant("sgd", "closed-form")
def decay_after_momentum(params: Any, **options: Any) -> Any:
    """Weight decay is added after the momentum instead of before it.

    Halfway to decoupled decay, whose name it often bears; nothing in the signature tells.
    """
    optimizer = lab.SGD(params, **options)
    optimizer.rules = tuple(sorted(optimizer.rules, key=lambda rule: isinstance(rule, (L2Penalty, LearningRate))))
    return optimizer


@mutant("sgd", "closed-form")
class ProjectsBeforeStep(Projection):
    """Parameters are projected before the step, and leave the set with it."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        super().finish(batch)
        return update

    def finish(self, batch: Batch) -> None:
        pass


@mutant("sgd", "closed-form")
def correction_ignored(params: Any, **options: Any) -> Any:
    """`adanorm=0.95` is accepted and nothing is put in front.

    An option of a base class that a subclass's own list of rules does not know of.
    """
    return lab.SGD(params, **{**options, "adanorm": None})


@mutant("adamw", "closed-form")
class DecaysTwiceTheRate(torch.optim.AdamW):
    """Decoupled weight decay is multiplied by the learning rate twice.

    `p.mul_(1 - lr * weight_decay)` and a step size that already holds lr: at lr = 0.001 nothing is decayed.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        lr, decay = options["lr"], options["weight_decay"]
        super().__init__(_tensors(params), **{**options, "weight_decay": lr * decay})


@mutant("adamw", "closed-form")
def coupled_adamw(params: Any, **options: Any) -> Any:
    """Weight decay goes into the gradient, and so through both moments, where AdamW decouples it.

    What every library called Adam with weight decay did before 2019.
    """
    return torch.optim.Adam(_tensors(params), **options)


@mutant("radamnorm-reference", "closed-form")
class DecayForgotten(DecoupledDecay):
    """Decoupled weight decay is an option that nothing reads."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        return update


# --------------------------------------------------------------------------------------------------------------------
# Adam and its kin


@spelled_out("adam")
@dataclass(frozen=True)
class Moment(SecondMoment):
    """The second moment, tensor by tensor."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        squares = self.average(batch)
        if batch.group["amsgrad"]:
            correction = 1 - batch.group["betas"][1] ** batch.step
            peaks = batch.state["max_exp_avg_sq"]
            squares = [self.largest(peak, v, correction) for peak, v in zip(peaks, squares, strict=True)]
        divide_pending(batch, [self.root(v, batch) for v in squares], 1.0)
        return update

    def average(self, batch: Batch) -> Tensors:
        return average_squares(batch)

    def largest(self, peak: Tensor, v: Tensor, correction: float) -> Tensor:
        return peak.copy_(torch.maximum(peak, v))

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return (v / (1 - batch.group["betas"][1] ** batch.step)).sqrt() + batch.group["eps"]


@mutant("adam", "closed-form")
class EpsInsideRoot(Moment):
    """eps stands inside the root: u / sqrt(v_hat + eps).

    So in TensorFlow's RMSProp, beside torch's with eps outside; papers were reproduced, or not, by that line.
    """

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return (v / (1 - batch.group["betas"][1] ** batch.step) + batch.group["eps"]).sqrt()


@mutant("adam", "closed-form")
class EpsHat(Moment):
    """eps is added to the root before its bias correction.

    Kingma and Ba's "epsilon hat", and TensorFlow's Adam: at the first step eps counts 1 / sqrt(1 - beta2) = 32 times.
    """

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return (v.sqrt() + batch.group["eps"]) / (1 - batch.group["betas"][1] ** batch.step) ** 0.5


@mutant("adam", "closed-form")
class EpsAccumulates(Moment):
    """eps is added into the stored second moment at every step.

    `exp_avg_sq.mul_(beta2).addcmul_(...).add_(eps)`: AdaNorm's published code, as in AdaBelief, where it belongs.
    """

    def average(self, batch: Batch) -> Tensors:
        squares = average_squares(batch)
        torch._foreach_add_(squares, batch.group["eps"])
        return squares


@mutant("adam", "closed-form")
class CorrectionOneOff(Moment):
    """The bias correction of v counts one step too many.

    `state["step"] += 1` before or after the moments: both are in use, and one of them is off by one.
    """

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return (v / (1 - batch.group["betas"][1] ** (batch.step + 1))).sqrt() + batch.group["eps"]


@mutant("adam", "closed-form")
class SecondMomentUncorrected(Moment):
    """The second moment has no bias correction."""

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return v.sqrt() + batch.group["eps"]


@mutant("adam", "closed-form")
class FirstMomentUncorrected(FirstMoment):
    """The first moment has no bias correction.

    BERT's own Adam shipped without any, and its fine-tuning was unstable for it (Mosbach et al. 2021).
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        averages = super().__call__(update, batch)
        batch.factor = 1.0
        return averages


@mutant("adam", "closed-form")
class AverageWeightsSwapped(FirstMoment):
    """m <- (1 - beta1) m + beta1 g.

    `lerp_(grad, beta1)` for `lerp_(grad, 1 - beta1)`: libraries define an average's weight either way round.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        beta, averages = batch.group["betas"][0], batch.state["exp_avg"]
        torch._foreach_lerp_(averages, update, beta)
        batch.factor = batch.factor / (1 - beta**batch.step)
        return averages


@mutant("adam", "closed-form")
class MomentInDefaultType(FirstMoment):
    """The first moment of a float64 parameter is kept in float32.

    `torch.zeros(param.shape)` has torch's default type, and foreach operations mix types in silence.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        averages = super().__call__(update, batch)
        torch._foreach_copy_(averages, [average.float() for average in averages])
        return averages


@mutant("adam", "closed-form")
def betas_swapped(params: Any, **options: Any) -> Any:
    """beta1 and beta2 change places."""
    return lab.Adam(params, **{**options, "betas": tuple(options["betas"])[::-1]})


@mutant("adam", "closed-form")
class MeanOverTensor(Moment):
    """The second moment is one number a tensor: a mean over axes that should have stayed."""

    def root(self, v: Tensor, batch: Batch) -> Tensor:
        return super().root(v, batch).mean().expand_as(v)


@mutant("adam", "closed-form")
class PeakNotStored(Moment):
    """AMSGrad's maximum is taken and never stored: `maximum` where `maximum_` was meant."""

    def largest(self, peak: Tensor, v: Tensor, correction: float) -> Tensor:
        return torch.maximum(peak, v)


@mutant("adam", "closed-form")
class PeakOfCorrected(Moment):
    """AMSGrad keeps the maximum of the corrected second moment, then corrects it again.

    The paper has no bias correction, so every library put one where it liked.
    """

    def largest(self, peak: Tensor, v: Tensor, correction: float) -> Tensor:
        return peak.copy_(torch.maximum(peak, v / correction))


@mutant("adam", "own-clock")
class GlobalStepCount(lab.Adam):
    """The bias correction counts the optimizer's steps, not the parameter's own.

    One counter a group (apex's fused optimizers): a layer thawed late starts with a correction long gone.
    """

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        count = max((int(state.get("step", 0)) for state in self.state.values()), default=0)
        for _, param in _members(self):
            if param.grad is not None:
                self.state[param]["step"] = count
        super().step()
        return loss


@mutant("adam", "tensors-apart")
class StateByShape(Moment):
    """Parameters of one shape share a second moment: buffers are cached by shape."""

    def average(self, batch: Batch) -> Tensors:
        first: dict[torch.Size, Tensor] = {}
        shared = [first.setdefault(v.shape, v) for v in batch.state["exp_avg_sq"]]
        with _holding(batch, exp_avg_sq=shared):
            return average_squares(batch)


@mutant("diffgrad", "closed-form")
class FrictionWithoutAbs(Friction):
    """Friction is the sigmoid of g_{t-1} - g_t, without its absolute value: it ranges over (0, 1), not [1/2, 1)."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        previous = batch.state["previous_grad"]
        friction = torch._foreach_sigmoid(torch._foreach_sub(previous, batch.grads))
        torch._foreach_copy_(previous, batch.grads)
        return list(torch._foreach_mul(update, friction))


@mutant("diffgrad", "closed-form")
class FrictionOnMoment(Friction):
    """Friction is multiplied into the stored first moment, and brakes all later steps too.

    `exp_avg.mul_(dfc)` where diffGrad's code makes a new tensor: one underscore.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        previous = batch.state["previous_grad"]
        change = torch._foreach_abs(torch._foreach_sub(previous, batch.grads))
        torch._foreach_copy_(previous, batch.grads)
        torch._foreach_mul_(batch.state["exp_avg"], torch._foreach_sigmoid(change))
        return update  # which is the first moment


@mutant("diffgrad", "state-moves")
class PreviousNotStored(Friction):
    """The previous gradient stays zero: `state["previous_grad"] = grad` is missing after the step."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        slowed = super().__call__(update, batch)
        torch._foreach_zero_(batch.state["previous_grad"])
        return slowed


@mutant("diffgrad", "gradients-untouched")
class PreviousIsGradient(Friction):
    """The previous gradient is p.grad itself, not a copy.

    With `zero_grad(set_to_none=False)` it is overwritten by the next backward pass, and never differs from the
    present one.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        slowed = super().__call__(update, batch)
        for state, grad in zip(batch._states, batch.grads, strict=True):
            state["previous_grad"] = grad
        return slowed


@mutant("diffgradnorm", "closed-form")
class FrictionOfCorrected(NormCorrection):
    """Friction sees the corrected gradients, whose differences are the correction's own."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        corrected = super().__call__(update, batch)
        batch.second, batch.grads = batch.grads if batch.second is None else batch.second, corrected
        return corrected


@spelled_out("radam")
@dataclass(frozen=True)
class Rectification(Rectified):
    """RAdam's rectified division, step by step."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        squares, beta, t = average_squares(batch), batch.group["betas"][1], batch.step
        longest = self.longest(beta)
        length = longest - 2 * t * beta**t / (1 - beta**t)
        if length > batch.group["threshold"]:
            squared = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            roots = [v.sqrt() + batch.group["eps"] for v in squares]
            divide_pending(batch, roots, self.rectification(squared) * (1 - beta**t) ** 0.5)
            return update
        return self.plain(update, batch)

    def longest(self, beta: float) -> float:
        return 2 / (1 - beta) - 1

    def rectification(self, squared: float) -> float:
        return squared**0.5

    def plain(self, update: Tensors, batch: Batch) -> Tensors:
        return update


@mutant("radam", "closed-form")
class LengthOneOff(Rectification):
    """The longest simple average is 2 / (1 - beta2), without the - 1."""

    def longest(self, beta: float) -> float:
        return 2 / (1 - beta)


@mutant("radam", "closed-form")
class RectificationSquared(Rectification):
    """The rectification term has lost its root."""

    def rectification(self, squared: float) -> float:
        return squared


@mutant("radam", "closed-form")
class PlainUncorrected(Rectification):
    """Below the threshold the step is the first moment without its bias correction.

    The correction stands in one branch and is forgotten in the other: the first step is ten times too short.
    """

    def plain(self, update: Tensors, batch: Batch) -> Tensors:
        batch.factor = batch.factor * (1 - batch.group["betas"][0] ** batch.step)
        return update


@mutant("radam", "closed-form")
def threshold_of_the_paper(params: Any, **options: Any) -> Any:
    """The threshold is the paper's 4, whatever was asked for (5, as most libraries have it)."""
    return _right("radam", params, {**options, "threshold": 4.0})


@spelled_out("adabelief")
@dataclass(frozen=True)
class Surprise(Belief):
    """AdaBelief's second moment, tensor by tensor."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        (beta1, beta2), eps = batch.group["betas"], batch.group["eps"]
        seen = batch.averaged if batch.group["belief"] == "corrected" else batch.grads
        for v, g, m in zip(batch.state["exp_avg_var"], seen, batch.state["exp_avg"], strict=True):
            v.mul_(beta2).addcmul_(*[self.surprise(g, m, beta1)] * 2, value=1 - beta2).add_(self.accumulated(eps))
        correction = 1 - beta2**batch.step
        divide_pending(batch, [(v / correction).sqrt() + eps for v in batch.state["exp_avg_var"]], 1.0)
        return update

    def surprise(self, g: Tensor, m: Tensor, beta1: float) -> Tensor:
        return g - m

    def accumulated(self, eps: float) -> float:
        return eps


@mutant("adabelief", "closed-form")
class SurpriseAtOldMean(Surprise):
    """The surprise is taken about m_{t-1}: v is updated before m."""

    def surprise(self, g: Tensor, m: Tensor, beta1: float) -> Tensor:
        return (g - m) / beta1 if beta1 else g  # g - m_t = beta1 (g - m_{t-1})


@mutant("adabelief", "closed-form")
class NoSurprise(Surprise):
    """The second moment is Adam's, of the gradient itself."""

    def surprise(self, g: Tensor, m: Tensor, beta1: float) -> Tensor:
        return g


@mutant("adabelief", "closed-form")
class EpsNotAccumulated(Surprise):
    """eps does not add up inside v.

    Adam's line, where AdaBelief's Algorithm 2 has eps twice; the step at a constant gradient depends on it.
    """

    def accumulated(self, eps: float) -> float:
        return 0.0


@mutant("adabeliefnorm", "closed-form")
def belief_raw(params: Any, **options: Any) -> Any:
    """The surprise is that of the raw gradient where the corrected one is asked for."""
    return _right("adabeliefnorm", params, {**options, "belief": "raw"})


# --------------------------------------------------------------------------------------------------------------------
# AdaNorm


@mutant("adamnorm", "state-moves")
class NormNeverStored(NormCorrection):
    """The running norm is computed and never stored: `mul` where `mul_` was meant.

    A popular collection's AdaNorm did nothing for several releases because of it.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        old = batch.vector("exp_avg_norm").clone()
        corrected = super().__call__(update, batch)
        batch.vector("exp_avg_norm").copy_(old)
        return corrected


@mutant("adamnorm", "norm-average")
class NormReset(NormCorrection):
    """The running norm starts from zero at every step.

    RAdamNorm's published code initialises it at each step after the first, so it never corrects anything.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        batch.vector("exp_avg_norm").zero_()
        return super().__call__(update, batch)


@mutant("adamnorm", "neutral-base")
class GammaHardCoded(NormCorrection):
    """gamma is 0.95 whatever was asked for: the paper's only value, written into the update as a literal."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        with _under(batch, gamma=0.95):
            return super().__call__(update, batch)


@mutant("adamnorm", "tensors-apart")
def global_norm(params: Any, **options: Any) -> Any:
    """The norm is that of all parameters together, where each tensor's own was asked for.

    Eq. 2 read literally, and what a line copied from gradient clipping computes.
    """
    return lab.AdamNorm(params, **{**options, "scope": "global"})


@mutant("adamnorm", "group-splitting")
class NormOfFirstGroup(NormCorrection):
    """The norm of all parameters is that of the first group's.

    `torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]])` is right while there is one group.
    """

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        if not self.together(batches[0].group):
            return super().run(updates, batches)
        [first] = super().run(updates[:1], batches[:1])
        [corrected, norm] = [torch.stack(torch._foreach_norm(some)).norm() for some in (first, updates[0])]
        return [first, *([u * (corrected / norm) for u in update] for update in updates[1:])]


@mutant("adamnorm", "closed-form")
def corrects_moment(params: Any, **options: Any) -> Any:
    """The first moment is corrected instead of the gradient that goes into it."""
    optimizer = lab.AdamNorm(params, **options)
    rules = list(optimizer.rules)
    number = next(i for i, rule in enumerate(rules) if isinstance(rule, NormCorrection))
    rules[number], rules[number + 1] = rules[number + 1], rules[number]
    optimizer.rules = tuple(rules)
    return optimizer


@mutant("adamnorm", "closed-form")
def second_moment_corrected(params: Any, **options: Any) -> Any:
    """The second moment sees the corrected gradient too, and the gain cancels in m / sqrt(v).

    `grad = grad * gain` before both moments: the shortest way to write it.
    """
    return lab.AdamNorm(params, **{**options, "correct": "both"})


@spelled_out("adamnorm")
@dataclass(frozen=True)
class Correction(NormCorrection):
    """The correction of the first moment, each tensor by its own norm."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        if batch.group["correct"] != "first":
            return super().__call__(update, batch)
        averages = batch.state["exp_avg_norm"]
        gains = [self.gain(u, e, batch.group["gamma"]) for u, e in zip(update, averages, strict=True)]
        batch.note("norm_gain", lambda: [(p, gain.mean()) for p, gain in zip(batch.params, gains, strict=True)])
        return [self.times(u, gain) for u, gain in zip(update, gains, strict=True)]

    def gain(self, u: Tensor, e: Tensor, gamma: float) -> Tensor:
        norm = self.norm(u)
        e.mul_(gamma).add_(norm, alpha=1 - gamma)
        return self.ratio(e, norm)

    def norm(self, u: Tensor) -> Tensor:
        return torch.linalg.vector_norm(u, dtype=torch.float64)

    def ratio(self, e: Tensor, norm: Tensor) -> Tensor:
        return torch.where((e > norm) & (norm > 0), e / norm, 1.0)

    def times(self, u: Tensor, gain: Tensor) -> Tensor:
        root = gain.sqrt().to(u.dtype)  # a gain of 1e40 is no float32, but its root is
        return u * root * root


@mutant("adamnorm", "norm-raised")
class CutsLargeGradients(Correction):
    """Large gradients are cut to the running norm instead of small ones raised: min(1, e / norm).

    The wrong sign of one comparison; it looks like clipping, trains well, and is not AdaNorm.
    """

    def ratio(self, e: Tensor, norm: Tensor) -> Tensor:
        return torch.where((e < norm) & (norm > 0), e / norm, 1.0)


@mutant("adamnorm", "closed-form")
class CorrectsAlways(Correction):
    """Every gradient gets the running norm: the comparison is missing."""

    def ratio(self, e: Tensor, norm: Tensor) -> Tensor:
        return torch.where(norm > 0, e / norm, 1.0)


@mutant("adamnorm", "closed-form")
class AveragesCorrectedNorm(Correction):
    """The running norm averages the norms of corrected gradients, and hardly ever falls."""

    def gain(self, u: Tensor, e: Tensor, gamma: float) -> Tensor:
        norm = self.norm(u)
        gain = self.ratio(gamma * e + (1 - gamma) * norm, norm)
        e.mul_(gamma).add_(norm * gain, alpha=1 - gamma)
        return gain


@mutant("adamnorm", "closed-form")
class ComparesOldNorm(Correction):
    """The gradient is compared with the running norm before that is updated: e_{t-1} for e_t."""

    def gain(self, u: Tensor, e: Tensor, gamma: float) -> Tensor:
        norm = self.norm(u)
        gain = self.ratio(e, norm)
        e.mul_(gamma).add_(norm, alpha=1 - gamma)
        return gain


@mutant("adamnorm", "norm-average")
class NormStartsAtFirst(Correction):
    """The running norm starts at the first gradient's norm, where e_0 = 0.

    As momentum buffers and INSGD's power do; it is the cure of a bias that Algorithm 2 has.
    """

    def gain(self, u: Tensor, e: Tensor, gamma: float) -> Tensor:
        return super().gain(u, e.copy_(self.norm(u)) if e == 0 else e, gamma)


@mutant("adamnorm", "zero-gradients")
class NanAtZero(Correction):
    """A zero gradient gives 0/0.

    AdamNorm, diffGradNorm and AdaBeliefNorm as published: one dead layer, one NaN, the end.
    """

    def ratio(self, e: Tensor, norm: Tensor) -> Tensor:
        return torch.where(e > norm, e / norm, 1.0)


@mutant("adamnorm", "extreme-gradients")
class NormOverflows(Correction):
    """The norm is taken in float32: gradients of 1e30 have none, and the average stays infinite."""

    def norm(self, u: Tensor) -> Tensor:
        return u.square().sum().sqrt().double()


@mutant("adamnorm", "closed-form")
class NormPerRow(Correction):
    """The norm is taken over the last axis alone: every row of a matrix has a gain of its own."""

    def gain(self, u: Tensor, e: Tensor, gamma: float) -> Tensor:
        rows = torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=torch.float64)
        e.mul_(gamma).add_(rows.mean(), alpha=1 - gamma)
        return self.ratio(e, rows)


@mutant("adamnorm", "gradients-untouched")
class CorrectsInPlace(Correction):
    """p.grad itself is multiplied by the gain.

    `p.grad.data.mul_(gain)`, before whatever reads the gradient next.
    """

    def times(self, u: Tensor, gain: Tensor) -> Tensor:
        return u.mul_(gain)


@mutant("adamnorm", "tensors-apart")
class NormShared(Correction):
    """One running norm serves all parameters.

    Kept on the group instead of in the parameter's state, it is updated once a parameter.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        with _holding(batch, exp_avg_norm=batch.state["exp_avg_norm"][:1] * len(update)):
            return super().__call__(update, batch)


@mutant("radamnorm-reference", "neutral-base")
class ForgetsNothing(ForgetfulNormCorrection):
    """The preset of the published code is "repaired": its running norm is kept, so it corrects.

    A well-meant clean-up of what looks like a mistake, and is one that results depend on.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        return NormCorrection.__call__(self, update, batch)


@mutant("adamnorm-reference", "closed-form")
class AccumulatesNothing(AccumulatingSecondMoment):
    """The preset of the published code is "repaired": eps no longer adds up in v."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        return SecondMoment.__call__(self, update, batch)


# --------------------------------------------------------------------------------------------------------------------
# LARS and LSALR


@spelled_out("lars")
@dataclass(frozen=True)
class Trust(TrustRatio):
    """LARS's ratio, tensor by tensor."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        spared = 1 if batch.group["exclude"] == "1d" else -1
        pairs = zip(update, batch.params, strict=True)
        return [u if p.ndim <= spared else self.scaled(u, p, batch) for u, p in pairs]

    def scaled(self, u: Tensor, p: Tensor, batch: Batch) -> Tensor:
        ratio = self.ratio(self.norm(p), self.norm(u), batch.group)
        batch.note("trust_ratio", lambda: [(p, ratio)])
        return (u + batch.group["weight_decay"] * p) * ratio.to(u.dtype)

    def norm(self, u: Tensor) -> Tensor:
        return torch.linalg.vector_norm(u, dtype=torch.float64)

    def ratio(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return torch.where((weight > 0) & (grad > 0), self.quotient(weight, grad, group), 1.0)

    def quotient(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return group["trust_coefficient"] * weight / (grad + group["weight_decay"] * weight + group["eps"])


@mutant("lars", "closed-form")
class ZeroNormStops(Trust):
    """A tensor of zeros has ratio 0, and stays zero for ever: layers initialised at zero never learn."""

    def ratio(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return self.quotient(weight, grad, group)


@mutant("lars", "zero-gradients")
class ZeroNormNan(Trust):
    """A zero gradient divides by zero: eps was thought superfluous."""

    def ratio(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return self.quotient(weight, grad, {**group, "eps": 0.0, "weight_decay": 0.0})


@mutant("lars", "closed-form")
class DecayNotInRatio(Trust):
    """The ratio's denominator leaves the weight decay out."""

    def quotient(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return group["trust_coefficient"] * weight / (grad + group["eps"])


@mutant("lars", "tensors-apart")
class RatioOfAllTensors(Trust):
    """The ratio is that of the norms of all parameters together, one for the whole model."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        with _holding(batch, joint=list(update)):
            return super().__call__(update, batch)

    def scaled(self, u: Tensor, p: Tensor, batch: Batch) -> Tensor:
        weight, grad = (
            torch.stack([self.norm(t) for t in tensors]).norm() for tensors in (batch.params, batch.state["joint"])
        )
        return (u + batch.group["weight_decay"] * p) * self.ratio(weight, grad, batch.group).to(u.dtype)


@mutant("lars", "closed-form")
def nothing_excluded(params: Any, **options: Any) -> Any:
    """Biases and normalisation parameters get a ratio too.

    The paper's algorithm does not exclude them, implementations do; a bias of norm 0.01 hardly moves.
    """
    return _right("lars", params, {**options, "exclude": "none"})


@mutant("lars", "closed-form")
class MomentumSeededRaw(Momentum):
    """The momentum buffer begins as the raw gradient: a first step of 0.451 where 0.001 is right.

    A popular collection's LARS: `buf = clone(p.grad)` beside an update that had been scaled.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        return super().__call__(batch.grads if "momentum_buffer" in batch.fresh else update, batch)


@mutant("lars", "closed-form")
def rate_after_momentum(params: Any, **options: Any) -> Any:
    """The learning rate comes after the momentum, as in torch's SGD, where LARS has it before.

    No difference until a schedule moves the rate: then old steps in the buffer are scaled anew.
    """
    optimizer = _right("lars", params, options)
    optimizer.rules = tuple(sorted(optimizer.rules, key=lambda rule: isinstance(rule, LearningRate)))
    return optimizer


@spelled_out("lsalr")
@dataclass(frozen=True)
class Gain(LogNormGain):
    """LSALR's gain, tensor by tensor."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        found = [self.guarded(torch.linalg.vector_norm(u, dtype=torch.float64)) for u in update]
        batch.note("lsalr_gain", lambda: zip(batch.params, found, strict=True))
        return [u * gain.to(u.dtype) for u, gain in zip(update, found, strict=True)]

    def guarded(self, norm: Tensor) -> Tensor:
        return torch.where(norm > 0, self.gain(norm), 1.0)

    def gain(self, norm: Tensor) -> Tensor:
        return 1 + torch.log1p(1 / norm)


@mutant("lsalr", "closed-form")
class LogForLog1p(Gain):
    """1 + log(1 / norm): a gradient of norm above e climbs."""

    def gain(self, norm: Tensor) -> Tensor:
        return 1 + torch.log(1 / norm)


@mutant("lsalr", "closed-form")
class OneForgotten(Gain):
    """log(1 + 1 / norm) alone: large gradients take no step."""

    def gain(self, norm: Tensor) -> Tensor:
        return torch.log1p(1 / norm)


@mutant("lsalr", "zero-gradients")
class InfiniteGain(Gain):
    """A zero gradient has an infinite gain, and 0 times that is NaN."""

    def guarded(self, norm: Tensor) -> Tensor:
        return self.gain(norm)


# --------------------------------------------------------------------------------------------------------------------
# INSGD and NLMS


@spelled_out("insgd-l2")
@dataclass(frozen=True)
class Power(InputPower):
    """INSGD's division, layer by layer."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        result = list(update)
        for i, reading in self.readings(batch).items():
            power, param = batch.state["log_power"][i], batch.params[i]
            scale = self.scale(power, reading, batch.group).to(update[i].dtype)
            batch.note("step_scale", lambda param=param, scale=scale: [(param, scale.mean())])
            result[i] = self.times(update[i], scale)
        return result

    def scale(self, power: Tensor, reading: Tensor | None, group: dict[str, Any]) -> Tensor:
        self.follow(power, reading, group["beta"])
        return torch.where(power.isnan(), 1.0, 1 / self.divisor(power, group))

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        if reading is not None:
            mixed = torch.where(power.isnan(), reading, self.mixed(power, reading, beta))
            power.copy_(torch.where(reading.isnan() | reading.isposinf(), power, mixed))

    def mixed(self, old: Tensor, new: Tensor, beta: float) -> Tensor:
        return torch.logaddexp(old + math.log(beta), new + math.log1p(-beta)) if beta else new

    def divisor(self, power: Tensor, group: dict[str, Any]) -> Tensor:
        eps = default_eps(group["damping"]) if group["eps"] is None else group["eps"]
        return self.floored(power, eps) if group["damping"] == "log" else self.added(power, eps)

    def floored(self, power: Tensor, eps: float) -> Tensor:
        return power.clamp(min=eps)

    def added(self, power: Tensor, eps: float) -> Tensor:
        return power.exp() + eps

    def times(self, u: Tensor, scale: Tensor) -> Tensor:
        return u * scale


@mutant("insgd-l2", "closed-form")
class Log10(Power):
    """The logarithm is taken to base 10.

    "log" is the natural one in the paper and in torch, and base 10 on paper elsewhere.
    """

    def floored(self, power: Tensor, eps: float) -> Tensor:
        return (power / math.log(10)).clamp(min=eps)


@mutant("insgd-l2", "quadratic", "gain-over-eps")
class ClipMissing(Power):
    """log P is not clipped at eps: inputs of power below 1 make the step climb.

    With inputs in [0, 1] and p = infinity, log P <= 0 always.
    """

    def floored(self, power: Tensor, eps: float) -> Tensor:
        return power


@mutant("insgd-l2", "closed-form")
class PowerAfterUse(Power):
    """P is updated after the step that should have used it: f(P_{t-1})."""

    def scale(self, power: Tensor, reading: Tensor | None, group: dict[str, Any]) -> Tensor:
        scale = torch.where(power.isnan(), 1.0, 1 / self.divisor(power, group))
        self.follow(power, reading, group["beta"])
        return scale


@mutant("insgd-l2", "closed-form")
class PowerNeverStored(Power):
    """The running power is computed from the first batch's for ever, and never stored.

    INSGD's published code never stores what it computes (the preset insgd-reference-l2 keeps it so).
    """

    def scale(self, power: Tensor, reading: Tensor | None, group: dict[str, Any]) -> Tensor:
        return super().scale(power if power.isnan().all() else power.clone(), reading, group)


@mutant("insgd-l2", "unmeasured-keeps-power", "never-measured")
class UnmeasuredIsZero(Power):
    """A step without measurement counts as inputs of zero.

    A running mean that is updated with whatever the hook's sum holds: after a reset, and no forward call, that is 0.
    """

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        super().follow(power, torch.full_like(power, -math.inf) if reading is None else reading, beta)


@mutant("insgd-l2", "unmeasured-keeps-power")
class UnmeasuredForgets(Power):
    """A layer that was not measured loses its power and takes scale 1 until it is measured again."""

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        if reading is None:
            power.fill_(math.nan)
        super().follow(power, reading, beta)


@mutant("insgd-l2", "never-measured")
class NeverMeasuredIsOne(Power):
    """P begins at 1 and not with the first measurement, so a layer never measured is divided by max(log 1, eps).

    `torch.ones_like(...)` as the neutral start of something that divides; its logarithm is not neutral.
    """

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        super().follow(power, reading, beta)
        power.nan_to_num_(nan=0.0)


@mutant("insgd-l2", "non-finite-input")
class NonFiniteStored(Power):
    """A statistic that is not finite is stored like any other: one overflow, and the layer never moves again."""

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        if reading is not None:
            power.copy_(torch.where(power.isnan(), reading, self.mixed(power, reading, beta)))


@mutant("insgd-reference-l2", "non-finite-input")
class NonFiniteDivides(DampedMomentum):
    """What is not finite is divided by all the same, and the buffer is NaN for good."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        buffers = super().__call__(update, batch)
        for i, reading in self.readings(batch).items():
            if reading is not None and not reading.isfinite().all():
                buffers[i].mul_(reading.exp())
        return buffers


@mutant("insgd-l2", "micro-batches")
class PowerPerCall(Power):
    """P is updated once a forward call: k micro-batches forget the past beta^k fast.

    So it is where the forward hook itself keeps the running mean.
    """

    def prepare(self, batches: list[Batch]) -> None:
        for batch in batches:
            meters = [self.sensor._meters.get(param) for param in batch.params]
            calls = [0 if meter is None else len(meter.calls) for meter in meters]
            batch.group = {**batch.group, "beta": batch.group["beta"] ** max(1, *calls)}
        super().prepare(batches)


@mutant("insgd-l2", "checkpointing")
def power_kept_by_hook(params: Any, **options: Any) -> Any:
    """P is updated in the forward hook itself, and once more when activation checkpointing runs the layer again."""
    optimizer = _exchanged("insgd-l2", CountsForward, params, **options)
    power, *others = optimizer.rules
    optimizer.rules = (_as(PowerPerCall, power), *others)
    return optimizer


@mutant("insgd-l1", "closed-form")
def order_ignored(params: Any, **options: Any) -> Any:
    """The norm's order is 2 whatever was asked for."""
    return lab.INSGD(params, **{**options, "p": 2.0})


@mutant("insgd-l2", "closed-form")
class LogarithmAveraged(Power):
    """The running mean is that of log P: a geometric mean, below P.

    The state is a logarithm, for range; `lerp_` on it is one short line.
    """

    def mixed(self, old: Tensor, new: Tensor, beta: float) -> Tensor:
        return beta * old + (1 - beta) * new


@mutant("insgd-l2", "closed-form")
class PowerFromZero(Power):
    """P starts at zero instead of at the first statistic: P_1 = (1 - beta) s_1."""

    def follow(self, power: Tensor, reading: Tensor | None, beta: float) -> None:
        if reading is not None and power.isnan().all():
            power.fill_(-math.inf)
        super().follow(power, reading, beta)


@mutant("insgd-l2", "measured-equals-declared")
class BiasDamped(InputPower):
    """A bias is divided by f(1), as its input is the constant 1: log 1 is clipped, and it steps 1 / eps = 100 times.

    Algorithm 1 taken at its word.
    """

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        result, measured = super().__call__(update, batch), self.readings(batch)
        eps = default_eps(batch.group["damping"]) if batch.group["eps"] is None else batch.group["eps"]
        return [u if i in measured else u / eps for i, u in enumerate(result)]


@mutant("insgd-l2", "closed-form")
def decays_before_division(params: Any, **options: Any) -> Any:
    """Weight decay is divided by f(P) too, where `decay="after"` was asked for."""
    return lab.INSGD(params, **{**options, "decay": "before"})


@dataclass(frozen=True)
class _PowerInPlace(Power):
    def times(self, u: Tensor, scale: Tensor) -> Tensor:
        return u.mul_(scale)


@mutant("insgd-l2", "closed-form")
def buffer_divided(params: Any, **options: Any) -> Any:
    """The momentum buffer itself is divided, in place: stored momentum is damped again at every step.

    INSGD's published code divides `buf`, not the update that it becomes.
    """
    optimizer = _exchanged("insgd-l2", _PowerInPlace, params, **options)
    optimizer.rules = tuple(sorted(optimizer.rules, key=lambda rule: not isinstance(rule, Momentum)))
    return optimizer


@mutant("insgd-reference-l2", "closed-form")
class BufferSpared(DampedMomentum):
    """The preset of the published code is "repaired": the update is divided, the stored buffer is not."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        divisors, momentum = self.divisors(batch), Momentum(self.momentum, self.dampening)
        with _under(batch, nesterov=False):
            averaged = update if momentum.idle(batch.group) else momentum(update, batch)
        return [u / divisors[i] if i in divisors else u for i, u in enumerate(averaged)]


@mutant("insgd-l2", "tensors-apart")
class PowerShared(Power):
    """One running power serves all layers of a group."""

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        powers, measured = batch.state["log_power"], self.readings(batch)
        shared = [powers[min(measured)] if i in measured else power for i, power in enumerate(powers)]
        with _holding(batch, log_power=shared):
            return super().__call__(update, batch)


@mutant("nlms", "constraint")
class NormNotSquared(Power):
    """The step is divided by the norm of x, not by its square."""

    def added(self, power: Tensor, eps: float) -> Tensor:
        return (power / 2).exp() + eps


@mutant("nlms", "gain-over-eps")
class EpsForgotten(Power):
    """Nothing is added to the squared norm of x: a zero input divides by zero."""

    def added(self, power: Tensor, eps: float) -> Tensor:
        return power.exp()


class _Readings(InputSensor):
    """A sensor of whose readings log s a mutant changes each."""

    def _call(self, module: nn.Module, param: Tensor | None, x: Tensor) -> Any:
        call = super()._call(module, param, x)
        return None if call is None else call._replace(log_s=self.wrong(call.log_s, call.examples, x))

    def wrong(self, log_s: Tensor, examples: int, x: Tensor) -> Tensor:
        raise NotImplementedError


@mutant("insgd-l2", "micro-batches")
class SumsOverBatch(_Readings):
    """s sums over the examples of a batch instead of averaging: the rate depends on the batch's size.

    `x.pow(2).sum()`, one keyword short.
    """

    def wrong(self, log_s: Tensor, examples: int, x: Tensor) -> Tensor:
        return log_s + math.log(examples)


@mutant("nlms", "constraint")
class MeanOverFeatures(_Readings):
    """s averages over features too.

    `x.pow(2).mean()`, one keyword short on the other side.
    """

    def wrong(self, log_s: Tensor, examples: int, x: Tensor) -> Tensor:
        return log_s - math.log(x.numel() / examples)


@mutant("insgd-l2", "half-precision-steps")
class HalfSumOverflows(_Readings):
    """A float16 sum of squares overflows at 65504, and such a layer is never measured."""

    def wrong(self, log_s: Tensor, examples: int, x: Tensor) -> Tensor:
        return log_s.exp().half().log().to(log_s.dtype) if x.dtype == torch.float16 else log_s


@mutant("insgd-l2", "micro-batches")
class LastCallOnly(InputSensor):
    """Only the last micro-batch is measured: each forward call overwrites what the one before it left."""

    def read(self, params: Any) -> Any:
        for meter in self._meters.values():
            meter.calls = meter.calls[-1:]
        return super().read(params)


@mutant("insgd-l2", "micro-batches")
class CallsWeighAlike(InputSensor):
    """Micro-batches of unequal size are averaged without weights."""

    def read(self, params: Any) -> Any:
        for meter in self._meters.values():
            meter.calls = [call._replace(examples=1) for call in meter.calls]
        return super().read(params)


class _Hooked(InputSensor):
    """A sensor with one more forward hook on each layer that it watches."""

    def watch(self, params: Any, **settings: Any) -> None:
        super().watch(params, **settings)
        hooked = self.__dict__.setdefault("hooked", set())
        for layer in {layer for param in params for layer in self.layers(param)} - hooked:
            layer.register_forward_hook(self.count)
            hooked.add(layer)

    def count(self, layer: Any, args: Any, output: Any) -> None:
        raise NotImplementedError


@mutant("insgd-l2", "discarded-loss")
class CountsForward(_Hooked):
    """Every forward call counts: evaluation, no_grad and a loss thrown away pollute P.

    It is what a plain forward hook does.
    """

    def count(self, layer: Any, args: Any, output: Any) -> None:
        call = self._call(layer, layer.weight, args[0])
        call.meter.calls.append(call)


@mutant("insgd-l2", "evaluation-between")
class CountsEvaluation(_Hooked):
    """Calls in evaluation mode count where gradient flows back through them (a saliency map, an adversarial input)."""

    def count(self, layer: Any, args: Any, output: Any) -> None:
        if output.requires_grad and not layer.training:
            self._hand_over(output, [self._call(layer, layer.weight, args[0])])


@mutant("insgd-l2", "cleared-gradients")
class KeepsDiscarded(InputSensor):
    """What was measured for a step that never came is kept for the next one.

    `zero_grad` clears gradients only; after a step that AMP's scaler skipped, P has seen the skipped batch.
    """

    def read(self, params: Any) -> Any:
        readings = super().read(params)
        super().discard()
        return readings

    def discard(self) -> None:
        pass


@mutant("insgd-reference-l2", "input-free")
class StandardisesOverBatch(InputSensor):
    """Inputs are standardised over the batch, as batch norm does it, and not over each plane."""

    def watch(self, params: Any, **settings: Any) -> None:
        super().watch(params, **{**settings, "center": False})

    def _call(self, module: nn.Module, param: Tensor | None, x: Tensor) -> Any:
        z = (x - x.mean(0)) / x.std(0).clamp(min=0.01) if len(x) > 1 else x
        return super()._call(module, param, z)


# --------------------------------------------------------------------------------------------------------------------
# The report


class Broken(NamedTuple):
    """That a law does not hold, in words; ``crash`` where the optimizer raised, which proves nothing."""

    law: str
    crash: bool
    seen: str


def main(pattern: str = "*") -> int:
    """Print which laws catch which mutant; 1 where one survives, or a right rule breaks a law."""
    chosen = {name: mutant for name, mutant in MUTANTS.items() if fnmatch.fnmatchcase(name, pattern)}
    parents = sorted({mutant.parent for mutant in chosen.values()})
    right = [*parents, *(name for name, rule in SPELLED_OUT.items() if rule.parent in parents)]
    found = dict(_judged([*chosen, *right]))
    caught = {name: [broken.law for broken in found[name] if not broken.crash] for name in chosen}
    rows = [
        (
            name.removeprefix("mutant-"),
            mutant.parent,
            _wrapped(mutant.bug),
            _wrapped(" ".join(caught[name]) or "NOTHING"),
        )
        for name, mutant in chosen.items()
    ]
    print(tabulate(rows, ("mutant", "right rule", "what is wrong", "caught by")))
    complaints = [f"{name} survives" for name in chosen if not caught[name]]
    complaints += [f"{name} breaks {broken.law}: {broken.seen}" for name in right for broken in found[name]]
    print(f"\n{len(chosen)} mutants, {len(right)} right rules, {len(complaints)} complaints", *complaints, sep="\n")
    return 1 if complaints else 0


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 60, break_on_hyphens=False)


def _judged(names: list[str]) -> Iterator[tuple[str, list[Broken]]]:
    """What each of them breaks, on all processors."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, (name, broken) in enumerate(zip(names, pool.map(_broken, names), strict=True), 1):
            print(f"{number} of {len(names)}", end="\r", file=sys.stderr)
            yield name, broken


def _broken(name: str) -> list[Broken]:
    """The laws that a mutant or a right rule breaks; those that are expected to catch it are given more time."""
    rule = {**MUTANTS, **SPELLED_OUT}.get(name)
    spec, expected = (lab.get_optimizer(name), ()) if rule is None else (rule.spec, rule.expected)
    failures = (first_failure(spec, law, 20 if law.name in expected else 6) for law in laws.LAWS)
    return [Broken(f.law.name, f.error.__cause__ is not None, str(f.error)) for f in failures if f]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
