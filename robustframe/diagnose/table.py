"""Every check, one entry each; the order is that of a diagnosis, and of those that decide the order of who is paid."""

from collections.abc import Callable

from robustframe.attacks import APGD, Square
from robustframe.diagnose import directions, outputs, solving, strength
from robustframe.diagnose.case import Case
from robustframe.diagnose.question import POINTS, Question
from robustframe.slopes import CLIMB, CURVED, DIRECTIONS, DISAGREEMENT, GRAINS, SCALES


def _votes(case: Case) -> int:
    """Fresh evaluations that confirm a success; a probe makes none where one draw decides."""
    return case.found.votes if case.found.votes > 1 else 0


def _ascents(case: Case) -> int:
    return sum(ascent.passes + _votes(case) for ascent in case.ascents)


def _first(case: Case) -> int:
    return case.ascents[0].passes + _votes(case)


def _each(passes: int) -> Callable[[Case, int], int]:
    """The same number of passes for every example."""
    return lambda case, count: passes * count


def _unavailable(case: Case, count: int) -> int:
    return count * (2 * _ascents(case) + case.found.votes * len(case.ascents))


def _misleading(case: Case, count: int) -> int:
    return count * (_ascents(case) + (2 * (1 + _votes(case)) + case.found.votes) * len(case.ascents))


def _derivative(case: Case, count: int) -> int:
    if not case.climbs_derivative:
        return 0
    points = 2 * DIRECTIONS * len(GRAINS) * len(SCALES)
    return count * (2 * CLIMB + 4 + (points + 3) * (1 + _votes(case)) + case.found.votes)


def _nearest(case: Case, count: int) -> int:
    near = strength.near_count(case.first(count))
    return count + near * ((strength.QUERIES + 2) * (1 + _votes(case)) + case.found.votes)


def _unstable(case: Case, count: int) -> int:
    return count * ((outputs.NOISES + 1) * (1 + _votes(case)) + case.found.votes)


def _single(case: Case, count: int) -> int:
    return count * (_first(case) + 2 * case.found.votes)


def _random_search(case: Case, count: int) -> int:
    return count * (strength.SAMPLES * (1 + _votes(case)) + case.found.votes)


def _wide(case: Case, count: int) -> int:
    return count * (_first(case) * (strength.WIDE_STEPS + 1) + case.found.votes)


def _climb(case: Case, count: int) -> int:
    return count * _passes(case, getattr(strength.climbing(case), "steps", strength.STEPS))


def _more_steps(case: Case, count: int) -> int:
    return count + strength.near_count(case.first(count)) * _passes(case, strength.MORE_STEPS)


def _passes(case: Case, steps: int) -> int:
    return _first(case) * (steps + 1) + 1 + 2 * case.found.votes


_CLIMBED = APGD.norms
"""Where there is a steepest step."""
_POINTS = "two points of robust accuracy, or what chance makes of one where that is more: three of 100 examples"
_IOAF = "Pintor et al., 2022, arXiv:2106.09947"
_CARLINI = "Carlini et al., 2019, arXiv:1902.06705"
_CHECKS = "AutoAttack's checks (Croce and Hein, 2020, arXiv:2003.01690)"

QUESTIONS: tuple[Question, ...] = (
    Question(
        name="enough-examples",
        asks=f"Nothing: with fewer than {strength.FEW} examples no robust accuracy is called sound.",
        threshold=0.0,
        why="the 95 % interval of so few holds almost everything",
        source="ours",
        remedy=f"evaluate at least {strength.FEW} examples",
        measure=strength.enough,
        looks_at="record",
        since="0.2.0",
    ),
    Question(
        name="claimed-unverified",
        asks="Successes that a search claimed and the exact model did not confirm, over all claimed. (Silent success "
        "cannot happen: every evaluated point counts.)",
        threshold=0.05,
        why="none with a deterministic model; a few near ties where votes decide",
        source=f"{_IOAF}, indicators 3 and 5",
        remedy="find out what makes the answer change between search and verification; with random numbers use rand@1",
        measure=directions.claims,
        looks_at="record",
    ),
    Question(
        name="black-box-beats-gradients",
        asks="Robust accuracy lost to attacks without gradients after all those with.",
        threshold=POINTS,
        why=_POINTS,
        source=f"{_CHECKS}; {_CARLINI}, test 7",
        remedy="gradients are masked: attack without them (masked@1), or name the step that hides them in bpda",
        measure=strength.black_box,
        in_points=True,
        looks_at="record",
    ),
    Question(
        name="not-monotone",
        asks="Robust accuracy at this eps of examples that the same run broke inside a smaller ball.",
        threshold=0.0,
        why="a smaller ball lies inside: the larger one must lose these examples too",
        source=f"{_CARLINI}, test 4",
        remedy="count the listed examples as broken, and use more steps or restarts at this eps",
        measure=strength.monotone,
        looks_at="record",
        in_points=True,
    ),
    Question(
        name="transfer-beats-attack",
        asks="Robust accuracy lost to stored images that broke other classifiers of the run.",
        threshold=POINTS,
        why=_POINTS,
        source=f"{_CARLINI}, test 7",
        remedy="the attack on this classifier is weaker than one on its neighbour: use recurrent@1 for a solver, "
        "standard@1 for others, or through = 'transfer'",
        measure=strength.transfer,
        looks_at="record",
        in_points=True,
    ),
    Question(
        name="randomised",
        asks="Share of images that get other logits when they come again.",
        threshold=0.0,
        why="a verdict on one draw of a random model is a draw itself",
        source=_CHECKS,
        remedy="evaluate with rand@1, which averages gradients (eot) and decides by votes",
        measure=outputs.randomised,
        looks_at="answers",
        cost=_each(3),
        least=8,
    ),
    Question(
        name="batch-dependent",
        asks="Share of images that get other logits among other batch mates.",
        threshold=0.0,
        why="an attacker sends one image; its answer may not hang on others",
        source="peers' defects: statistics of the batch at test time",
        remedy="use stored statistics (evaluation mode) or evaluate image by image",
        measure=outputs.batch_dependent,
        looks_at="answers",
        cost=_each(2),
        least=8,
    ),
    Question(
        name="input-dependent-computation",
        asks="Spread of the number of operations executed for single images, over the largest; 1 where the model takes "
        "gradients at inference.",
        threshold=0.0,
        why="branches on the input make the gradient one of a single branch",
        source=f"{_CHECKS}: dynamic defences",
        remedy="use recurrent@1, whose gradients also go through a fixed number of sweeps, or fix the computation",
        measure=outputs.input_dependent,
        looks_at="answers",
        cost=_each(1),
        least=2 * outputs.SINGLES,
    ),
    Question(
        name="differs-under-gradients",
        asks="Share of images that get other logits while gradients are asked for.",
        threshold=0.0,
        why="an attack would climb a model that nobody uses",
        source="`for_attack` switches of published test-time defences",
        remedy="remove the switch, or attack without gradients (masked@1)",
        measure=directions.differs_under_gradients,
        looks_at="gradients",
        cost=_each(2),
        least=8,
    ),
    Question(
        name="not-logits",
        asks="Share of outputs whose softmax underflows in float32, or that are rounded to three decimals.",
        threshold=0.1,
        why="the cross-entropy has no gradient there; single examples are common with honest models",
        source=f"{_IOAF}, section on distillation; AutoAttack's flags",
        remedy="climb a loss without scale: swift@2 or standard@1; return logits before temperature and rounding",
        measure=outputs.not_logits,
        looks_at="gradients",
        cost=_each(1),
        least=8,
    ),
    Question(
        name="unavailable-gradients",
        asks="Share of examples where the gradient of the battery's loss, at the image or a random start, is zero, "
        "missing or not finite; for the best of its ways to take gradients.",
        threshold=0.1,
        why="the reference counts any; a dead unit or two is not a defence",
        source=f"{_IOAF}, indicator 1; AutoAttack's checks",
        remedy="attack without gradients (masked@1), name the step without one in a battery's bpda, or climb a loss "
        "without scale (swift@2)",
        measure=directions.unavailable,
        looks_at="gradients",
        cost=_unavailable,
        least=6,
    ),
    Question(
        name="misleading-gradients",
        asks="Share of examples on which a step of length eps along the gradient raises the margin no more than one in "
        "a random direction.",
        threshold=0.1,
        why="with a real gradient this hardly ever happens",
        source="after Athalye et al., 2018, arXiv:1802.00420",
        remedy="the gradient points nowhere: attack without it (masked@1), or average it over draws (eot)",
        measure=directions.misleading,
        norms=_CLIMBED,
        looks_at="gradients",
        cost=_misleading,
        least=6,
    ),
    Question(
        name="gradient-no-derivative",
        asks="One minus the cosine between slopes by the gradient and slopes of the model by evaluations alone, along "
        f"{2 * DIRECTIONS} smooth and rough directions, at images and where a short climb ends: the median "
        "over examples, in the worse kind of direction and the worse half of the points.",
        threshold=DISAGREEMENT,
        why=f"at most, as far as the model is not straight between the points, as rounded ones are not; "
        f"{CURVED} where it is",
        source="ours; the idea is that of every gradient check by finite differences",
        remedy="the gradient is not that of this model: attack without it (masked@1), or name what is wrong in bpda",
        measure=directions.derivative,
        looks_at="gradients",
        cost=_derivative,
        least=4,
        most=16,
        share=0.3,
        since="0.2.0",
    ),
    Question(
        name="nearest-survivors-fall",
        asks="Share of the survivors nearest to the boundary that fall to an attack without gradients, Square with "
        f"{strength.QUERIES} queries.",
        threshold=strength.NEAR_SHARE,
        why="gradients that work have been there first; one may be chance",
        source=f"ours, after {_CARLINI}, test 7",
        remedy="gradients are masked: attack without them (masked@1), or name the step that hides them in bpda",
        measure=strength.queries,
        norms=Square.norms,
        looks_at="survivors",
        cost=_nearest,
        least=6,
        most=2 * strength.NEAREST,
        since="0.2.0",
        of_nearest=True,
    ),
    Question(
        name="unstable-predictions",
        asks="Relative change of the margin under uniform noise of 4/255, each at most 1: the median over examples of "
        "the mean over draws.",
        threshold=0.1,
        why="more than twice what honest models show",
        source=f"{_IOAF}, indicator 2 (of the margin, with {outputs.NOISES} draws)",
        remedy="the loss is rugged: attack without gradients (masked@1), or replace the rugged step (bpda)",
        measure=outputs.unstable,
        looks_at="gradients",
        cost=_unstable,
        decides=False,
    ),
    Question(
        name="solver-not-converged",
        asks="Share of predictions that are other ones after twice the sweeps.",
        threshold=0.1,
        why="a solver that has converged changes no answer",
        source="attacks on equilibrium models (Yang et al., 2022)",
        remedy="state the number of sweeps as part of the model, and attack more of them too: recurrent@1",
        measure=solving.solver_settles,
        looks_at="solver",
        cost=_each(3),
        least=8,
    ),
    Question(
        name="breaks-by-stopping",
        asks="Share of stored adversarial images that twice the sweeps put right.",
        threshold=0.75,
        why="attacks stop just past the boundary, where any small change puts half of the images right; three quarters "
        "are no accident",
        source="attacks on equilibrium models (Yang et al., 2022)",
        remedy="breaks come from early stopping: report robust accuracy at twice the sweeps too",
        measure=solving.breaks_by_stopping,
        looks_at="solver",
        cost=_each(4),
        least=8,
    ),
    Question(
        name="single-step-beats-battery",
        asks="Robust accuracy lost to one step of length eps.",
        threshold=0.0,
        why="iterating contains the single step",
        source=f"{_CARLINI}, test 1",
        remedy="the iterations go astray: use apgd with more steps, or average gradients (eot)",
        measure=strength.single_step,
        norms=_CLIMBED,
        looks_at="survivors",
        in_points=True,
        cost=_single,
        least=6,
    ),
    Question(
        name="random-search-wins",
        asks=f"Robust accuracy lost to the best of {strength.SAMPLES} random points.",
        threshold=0.0,
        why="random search never beats gradients that work",
        source=f"{_CARLINI}, test 8",
        remedy="gradients are masked: attack without them (masked@1), or use bpda or eot",
        measure=strength.random_search,
        looks_at="survivors",
        in_points=True,
        cost=_random_search,
        decides=False,
    ),
    Question(
        name="more-steps-gain",
        asks="Share of the survivors nearest to the boundary that fall to a fresh start with "
        f"{strength.MORE_STEPS} steps on the margin.",
        threshold=strength.MORE_SHARE,
        why="the nearest of all are a point or two of robust accuracy; one may be chance",
        source=f"{_CARLINI}, tests 2 and 3",
        remedy="the attack has not converged: use standard@1, or more steps and restarts until nothing changes",
        measure=strength.more_steps,
        norms=_CLIMBED,
        looks_at="survivors",
        cost=_more_steps,
        least=6,
        most=2 * strength.NEAREST,
        decides=False,
        of_nearest=True,
    ),
    Question(
        name="large-eps-above-chance",
        asks="Robust accuracy in a ball that holds the grey image (linf 0.5).",
        threshold=0.1,
        why="chance: one over the number of classes, here for ten",
        source=f"{_CARLINI}, test 5",
        remedy="nothing can be robust there: the attack fails; look for masked gradients",
        measure=strength.wide,
        norms=_CLIMBED,
        looks_at="survivors",
        in_points=True,
        cost=_wide,
        decides=False,
    ),
    Question(
        name="unbounded-attack-fails",
        asks="Share of survivors that an attack without a bound does not break.",
        threshold=0.05,
        why="the reference wants 0; one of twenty may need more than a few steps",
        source=f"{_IOAF}, indicator 6; {_CARLINI}, test 6",
        remedy="the attack fails where success is certain: look for masked gradients",
        measure=strength.unbounded,
        norms=_CLIMBED,
        looks_at="survivors",
        cost=_wide,
        decides=False,
    ),
    Question(
        name="incomplete-optimisation",
        asks="Share of runs on survivors whose loss rises by more than 5 % in its last ten steps, at a pace that would "
        "succeed in twice the steps.",
        threshold=0.25,
        why="a few runs near the boundary are always under way",
        source=f"{_IOAF}, indicator 4 (and only where it matters)",
        remedy="use more steps: standard@1 has 100",
        measure=strength.optimised,
        norms=_CLIMBED,
        looks_at="survivors",
        cost=_climb,
        decides=False,
    ),
    Question(
        name="broken-by-checks",
        asks="Robust accuracy lost for certain: survivors that any check above broke inside ball and box, over all "
        "examples. No verdict is changed.",
        threshold=POINTS,
        why="two points of robust accuracy",
        source="ours",
        remedy="robust accuracy is at most what is left without the listed examples; evaluate with a stronger battery",
        measure=strength.fallen,
        looks_at="record",
    ),
)
"""The checks. One more is one entry here and the function that it names."""
