"""Laws that an optimizer should keep, for ours and for yours, and the Hypothesis strategies behind them.

On the command line, ``insgd-lab check NAME`` tries every law on a registered optimizer. In your own tests, one law
is one test::

    import pytest
    from insgd_lab import get_optimizer, register_optimizer
    from insgd_lab.testing import laws, strategies

    register_optimizer("my-rule")(MyRule)            # any torch.optim.Optimizer; every option needs a default

    @pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.name)
    def test_my_rule_keeps(law):
        [outcome] = laws.check("my-rule", pattern=law.name)
        assert outcome.verdict != "fail", outcome

An optimizer may be made of parameters, of parameter groups or of a whole model: laws find out which it takes, and
those that need what it does not take do not apply. One that cannot be made at all raises ``laws.CannotBuild``.

A law knows where it applies (``law.reason(spec)`` says why not), draws cases (``law.cases(spec)``, a Hypothesis
strategy of plain dicts that survive JSON) and judges one (``law.hold(spec, case)``)::

    @given(seed=strategies.seeds, steps=strategies.steps)
    def test_my_rule_resumes(seed, steps):
        case = {"seed": seed, "steps": steps, "dtype": "float32", "options": {}}
        laws.get("resume").hold(get_optimizer("my-rule"), case)

What a rule promises beyond what every optimizer should do stands in its registered ``Capabilities``.
"""
