"""Parts of a generation without a model: the choice of tokens, chat templates, pieces of a text, settings, the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.generation import logits_process
from transformers.utils.chat_template_utils import render_jinja_template

from runtime.errors import ArtifactFailedError, InputTextError
from runtime.format.manifest import (
    BeamDefaults,
    CacheTensor,
    ChatTemplate,
    GenerationInfo,
    SamplingDefaults,
    TokenRules,
)
from runtime.generation.cache import Caches
from runtime.generation.loop import PIECE, Loop
from runtime.generation.sampling import Place, candidates, choose, processed
from runtime.generation.settings import Settings, new_tokens, settings_of, stop_strings
from runtime.text.chat import MAX_CHARACTERS, check_messages, render
from runtime.text.generation import Request, TextGenerator, make_request

NO_DEFAULTS = SamplingDefaults(False, 1.0, 50, None, None, 1.0)
INFO = GenerationInfo((CacheTensor(1, 1, "float32"),) * 2, 4096, (1,), NO_DEFAULTS, None)
# Asked for the processors that its `generate` would use; its weights do not matter.
TINY = AutoModelForCausalLM.from_config(
    AutoConfig.for_model("gpt2", vocab_size=40, n_embd=8, n_layer=1, n_head=1, n_positions=32)
)
MESSAGES = [{"role": "user", "content": "Hello"}]


# Choosing tokens


def place(ids: Sequence[int], prompt: int = 1, most: int = 100, stop_ids: Sequence[int] = (1,)) -> Place:
    return Place(ids, prompt, most, stop_ids)


def warped(scores: torch.Tensor, seen: Sequence[int], settings: Settings) -> torch.Tensor:
    """Probabilities by transformers' own steps, in the order in which its `generate` makes them."""
    steps: list[Any] = []
    if settings.repetition_penalty is not None:
        steps.append(logits_process.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.temperature != 1:
        steps.append(logits_process.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k is not None:
        steps.append(logits_process.TopKLogitsWarper(settings.top_k))
    if settings.top_p is not None:
        steps.append(logits_process.TopPLogitsWarper(settings.top_p))
    if settings.min_p is not None:
        steps.append(logits_process.MinPLogitsWarper(settings.min_p))
    if settings.typical_p is not None:
        steps.append(logits_process.TypicalLogitsWarper(settings.typical_p))
    if settings.epsilon_cutoff is not None:
        steps.append(logits_process.EpsilonLogitsWarper(settings.epsilon_cutoff))
    if settings.eta_cutoff is not None:
        steps.append(logits_process.EtaLogitsWarper(settings.eta_cutoff))
    found = scores[None].clone()
    for step in steps:
        found = step(torch.tensor([list(seen)]), found)
    return found[0].softmax(-1)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(True),
        Settings(True, temperature=0.4),
        Settings(True, top_k=5),
        Settings(True, top_p=0.6),
        Settings(True, min_p=0.1),
        Settings(True, 1.7, 1.3, 12, 0.8, 0.05),
        Settings(True, 0.6, top_p=1e-6),
        Settings(True, top_k=100),
        Settings(True, typical_p=0.3),
        Settings(True, typical_p=0.95),
        Settings(True, epsilon_cutoff=0.03),
        Settings(True, epsilon_cutoff=0.9),
        Settings(True, eta_cutoff=0.05),
        Settings(True, None, 1.2, 20, 0.9, 0.01, typical_p=0.6, epsilon_cutoff=0.02, eta_cutoff=0.02),
    ],
    ids=str,
)
def test_what_can_be_drawn_is_as_in_transformers(settings: Settings) -> None:
    for seed in range(20):
        scores = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 3
        # Equal scores at the edge of the best ones.
        scores[seed % 40] = scores[(seed + 7) % 40]
        seen = [3, 3, 17, seed]
        expected = warped(scores, seen, settings)
        penalised = scores
        if settings.repetition_penalty is not None:
            found = scores[[3, 17, *({seed} - {3, 17})]]
            changed = torch.where(found < 0, found * settings.repetition_penalty, found / settings.repetition_penalty)
            penalised = scores.scatter(0, torch.tensor([3, 17, *({seed} - {3, 17})]), changed)
        ids, kept = candidates(penalised / settings.temperature, settings)
        shares = torch.zeros(40).scatter(0, ids, kept.softmax(-1))
        torch.testing.assert_close(shares, expected)


def test_draws_follow_the_probabilities() -> None:
    """Of 5,000 draws each token has its share, within five standard deviations."""
    settings = Settings(True, 1.3, 0.8, 6, 0.95)
    scores = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -1.0, 0.5, 1.7])
    generator, count = torch.Generator().manual_seed(5), 5_000
    drawn = torch.bincount(
        torch.tensor([choose(scores, place([1, 4]), settings, generator) for _ in range(count)]), minlength=8
    )
    shares = warped(scores, [1, 4], settings)
    assert ((drawn - count * shares).abs() <= 5 * (count * shares * (1 - shares)).sqrt()).all(), (drawn, shares)
    assert int((drawn > 0).sum()) < 8


def test_greedy_takes_the_largest_behind_the_penalty() -> None:
    scores, generator = torch.tensor([1.0, 2.0, 1.9]), torch.Generator()
    assert choose(scores, place([1]), Settings(), generator) == 1
    assert choose(scores, place([1]), Settings(repetition_penalty=1.5), generator) == 2


# Each with the tokens of a row, how many of them are the prompt's, and how many there can be.
RULES: list[tuple[TokenRules, list[int], int, int]] = [
    (TokenRules(no_repeat_ngram_size=2), [5, 6, 5, 7, 5], 2, 20),
    (TokenRules(no_repeat_ngram_size=3), [5, 6, 7, 8, 5, 6, 9, 5, 6], 2, 20),
    (TokenRules(no_repeat_ngram_size=1), [5, 6], 1, 20),
    (TokenRules(no_repeat_ngram_size=4), [5, 6], 1, 20),
    (TokenRules(bad_words_ids=((9,), (5, 6), (7, 5, 6), (1,), (1, 8), (8, 5, 3))), [7, 5], 1, 20),
    (TokenRules(bad_words_ids=((4, 5, 6, 7),)), [5, 6], 1, 20),
    (TokenRules(min_length=4), [5, 6, 7], 2, 20),
    (TokenRules(min_length=3), [5, 6, 7], 2, 20),
    (TokenRules(min_new_tokens=2), [5, 6, 7], 2, 20),
    (TokenRules(min_new_tokens=1), [5, 6, 7], 2, 20),
    (TokenRules(forced_bos_token_id=3), [5], 1, 20),
    (TokenRules(forced_bos_token_id=3), [5, 6], 2, 20),
    (TokenRules(forced_eos_token_ids=(2, 1)), [5, 6, 7], 2, 4),
    (TokenRules(forced_eos_token_ids=(2,)), [5, 6, 7], 2, 5),
    (TokenRules(decay_start=1, decay_factor=1.5), [5, 6, 7, 8, 9], 2, 20),
    (TokenRules(decay_start=3, decay_factor=1.5), [5, 6, 7, 8, 9], 2, 20),
    (TokenRules(decay_start=0, decay_factor=0.5, min_length=20), [5, 6, 7, 8, 9], 2, 20),
    (TokenRules(suppress_tokens=(3, 4, 39)), [5, 6], 1, 20),
    (TokenRules(begin_suppress_tokens=(3, 4)), [5, 6], 2, 20),
    (TokenRules(begin_suppress_tokens=(3, 4)), [5, 6], 1, 20),
    (TokenRules(begin_suppress_tokens=(3, 4), forced_bos_token_id=7), [5, 7], 1, 20),
    (TokenRules(2, ((9,), (5, 6)), 9, 3, None, (2,), 1, 1.2, (3,), (4,)), [5, 6, 5, 7, 5], 4, 6),
]


@pytest.mark.parametrize("penalty", [None, 1.4])
@pytest.mark.parametrize(("rules", "ids", "prompt", "most"), RULES, ids=str)
def test_rules_are_transformers(
    rules: TokenRules, ids: list[int], prompt: int, most: int, penalty: float | None
) -> None:
    """The scores that come out of transformers' own processors, as its `generate` puts them together."""
    config = GenerationConfig(
        no_repeat_ngram_size=rules.no_repeat_ngram_size,
        bad_words_ids=[list(word) for word in rules.bad_words_ids] or None,
        min_length=rules.min_length,
        min_new_tokens=rules.min_new_tokens or None,
        forced_bos_token_id=rules.forced_bos_token_id,
        forced_eos_token_id=list(rules.forced_eos_token_ids) or None,
        exponential_decay_length_penalty=None if rules.decay_factor == 1 else (rules.decay_start, rules.decay_factor),
        suppress_tokens=list(rules.suppress_tokens) or None,
        begin_suppress_tokens=list(rules.begin_suppress_tokens) or None,
        repetition_penalty=penalty or 1.0,
        max_length=most,
        num_beams=1,
        do_sample=False,
    )
    config._eos_token_tensor = torch.tensor([1, 8])
    steps = TINY._get_logits_processor(generation_config=config, input_ids_seq_length=prompt, device="cpu")
    settings = Settings(rules=rules, repetition_penalty=penalty)
    for seed in range(5):
        scores = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 3
        before = scores.clone()
        expected = steps(torch.tensor([ids]), scores[None].clone())[0]
        assert torch.equal(processed(scores, place(ids, prompt, most, (1, 8)), settings), expected)
        assert torch.equal(scores, before)


def test_rules_that_leave_no_token() -> None:
    with pytest.raises(ArtifactFailedError, match="leave no token behind 2 tokens"):
        rules = TokenRules(suppress_tokens=tuple(range(40)))
        choose(torch.zeros(40), place([5, 6]), Settings(rules=rules), torch.Generator())


@pytest.mark.parametrize("sample", [False, True])
def test_logits_that_are_no_numbers_are_refused(sample: bool) -> None:
    """Nothing is written by chance where a model, or a setting, leaves nothing to choose from."""
    nan, infinity = float("nan"), float("inf")
    for bad in ([1.0, nan, 2.0], [1.0, infinity, 2.0], [-infinity] * 3, []):
        with pytest.raises(ArtifactFailedError, match="the model's largest logit is"):
            choose(torch.tensor(bad), place([]), Settings(sample), torch.Generator())
    good = torch.tensor([1.0, -infinity, 2.0])
    assert choose(good, place([]), Settings(sample, top_k=1), torch.Generator()) == 2
    with pytest.raises(InputTextError, match="repetition_penalty make the largest score inf"):
        choose(good, place([0]), Settings(sample, repetition_penalty=1e-40), torch.Generator())
    if sample:
        with pytest.raises(InputTextError, match="temperature and"):
            choose(good, place([]), Settings(sample, temperature=1e-40), torch.Generator())


# Settings


def test_beams_or_draws() -> None:
    beams = SamplingDefaults(False, 1.0, 50, None, None, 1.0, beams=BeamDefaults(4, 0.5, "yes"))
    assert settings_of(beams, seed=1).beams == BeamDefaults(4, 0.5, "yes")
    assert settings_of(beams, num_beams=1, temperature=0.5, seed=1).beams.count == 1
    assert settings_of(NO_DEFAULTS, num_beams=3, temperature=0).beams == BeamDefaults(3)
    for defaults, options in ((beams, {"temperature": 0.5}), (NO_DEFAULTS, {"num_beams": 2, "top_k": 3})):
        with pytest.raises(InputTextError, match="num_beams is ., and the text is to be sampled; expected one of"):
            settings_of(defaults, **options)
    with pytest.raises(InputTextError, match="num_beams is 4, with stop strings"):
        make_request(beams, stop="x")


def test_what_is_not_given_is_the_models() -> None:
    defaults = SamplingDefaults(True, 0.6, 20, 0.9, None, 1.1)
    assert settings_of(defaults, seed=1) == Settings(True, 1.1, 0.6, 20, 0.9, None, 1)
    assert settings_of(defaults, temperature=0, seed=1).sample is False
    assert settings_of(defaults, top_k=0, top_p=1.0, seed=1) == Settings(True, 1.1, 0.6, None, None, None, 1)
    assert settings_of(NO_DEFAULTS, seed=1) == Settings(False, None, 1.0, 50, None, None, 1)
    assert settings_of(NO_DEFAULTS, temperature=0.7, seed=1) == Settings(True, None, 0.7, 50, None, None, 1)
    assert settings_of(NO_DEFAULTS).seed != settings_of(NO_DEFAULTS).seed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", True),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", "much"),
        ("seed", -1),
        ("seed", 2**63),
        ("num_beams", 0),
        ("num_beams", 257),
        ("num_beams", "many"),
    ],
)
def test_settings_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(InputTextError, match=f"{option} is .*; expected a"):
        settings_of(NO_DEFAULTS, **{option: value})


def test_lengths_and_stop_texts_out_of_range() -> None:
    for value in (0, -1, 2.5, "ten", True):
        with pytest.raises(InputTextError, match="max_new_tokens is"):
            new_tokens(value)
    for stop in ("", ["a", ""], 3, [3], None):
        with pytest.raises(InputTextError, match="stop is"):
            stop_strings(stop)
    assert stop_strings("\n") == ("\n",)


# The loop, with a model that counts: the next token is that of the row's place, plus what the row began with


class Counting:
    """A method `decode` whose logits name the sum of a row's tokens so far, modulo 50, which it keeps in a cache."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, caches: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        self.shapes.append(tuple(ids.shape))
        keys = caches[0]
        keys.scatter_(2, positions[:, None, :, None], ids[:, None, :, None].float())
        sums = keys[:, 0, :, 0].cumsum(1).gather(1, positions.gather(1, kept)) % 50
        return torch.nn.functional.one_hot(sums.long(), 50).float()


def written(prompts: Sequence[list[int]], most: Sequence[int], decode: Counting | None = None) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {number: [] for number in range(len(prompts))}
    for steps in Loop(decode or Counting(), INFO, prompts, most, Settings()).steps():
        for step in steps:
            found[step.row].append(step.token)
    return found


def counted(prompt: list[int], most: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + most and (len(ids) == len(prompt) or ids[-1] != 1):
        ids.append(sum(ids) % 50)
    return ids[len(prompt) :]


def test_rows_of_different_lengths_are_those_alone() -> None:
    prompts, most = [[7], [2, 3, 5, 8, 13] * 9, [4, 4]], [30, 5, 70]
    decode = Counting()
    found = written(prompts, most, decode)
    assert found == {number: counted(*pair) for number, pair in enumerate(zip(prompts, most, strict=True))}
    # A row that has ended is not computed any more.
    assert decode.shapes[-1] == (1, 1) and (3, 1) in decode.shapes


def test_a_stop_token_ends_a_row_and_no_other() -> None:
    assert counted([17, 34], 40) == [1]
    found = written([[17, 34], [3]], [40, 40])
    assert found == {0: [1], 1: counted([3], 40)} and len(found[1]) == 40


def test_long_prompts_are_read_in_pieces() -> None:
    prompts = [[number % 50 for number in range(length)] for length in (PIECE - 1, PIECE, 2 * PIECE + 3, 5)]
    decode = Counting()
    assert written(prompts, [3] * 4, decode) == {number: counted(prompt, 3) for number, prompt in enumerate(prompts)}
    assert decode.shapes[:3] == [(4, PIECE), (4, PIECE), (4, 3)]


def test_a_cache_grows_with_what_it_holds() -> None:
    caches = Caches(INFO, 2, 3)
    assert caches.length == 64
    caches.tensors[0][:, :, 63] = 5
    caches.make_room(65)
    assert caches.length == 128 and float(caches.tensors[0][1, 0, 63, 0]) == 5
    caches.make_room(4096)
    assert caches.length == 4096
    caches.keep_rows([1])
    assert caches.tensors[1].shape == (1, 1, 4096, 1)


# Texts, with a tokenizer of bytes


class Bytes:
    """An encoder of UTF-8: a token is a byte."""

    def prompts(self, texts: Sequence[str], *, special: bool) -> list[Any]:
        assert special or not texts

        class Encoding:
            def __init__(self, text: str) -> None:
                self.ids = list(text.encode())

        return [Encoding(text) for text in texts]

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        return bytes(number for number in ids if number != 255).decode(errors="replace")


def says(text: str) -> Callable[..., torch.Tensor]:
    """A method `decode` that writes these bytes behind a prompt of one byte, then 255."""
    data = [*text.encode(), 255]

    def decode(_ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, _caches: Any) -> torch.Tensor:
        place = positions.gather(1, kept).clamp(max=len(data) - 1)
        return torch.nn.functional.one_hot(torch.tensor(data)[place], 256).float()

    return decode


def pieces(text: str, stop: Sequence[str] = (), most: int | None = None) -> list[str]:
    info = GenerationInfo(INFO.caches, 4096, (255,), NO_DEFAULTS, None)
    generator = TextGenerator(says(text), info, Bytes())  # type: ignore[arg-type]
    request = Request(Settings(), most, tuple(stop), False)
    stream = generator.stream("x", request, "prompt")
    found = list(stream)
    (whole,) = generator.results(["x"], request, "raise", "prompt")
    assert stream.result == whole and "".join(found) == str(whole)
    return found


def test_pieces_never_end_within_a_character() -> None:
    assert pieces("a é 東🙂!") == ["a", " ", "é", " ", "東", "🙂", "!"]
    # What ends within one is given out as it is.
    assert pieces("ab🙂", most=4) == ["a", "b", "\ufffd"]


def test_stop_texts_are_neither_in_the_text_nor_in_a_piece() -> None:
    assert "".join(pieces("one two END three", ["END"])) == "one two "
    assert "".join(pieces("one E EN two", ["END", "ENTER"])) == "one E EN two"
    assert pieces("aab aac", ["aac"]) == ["aab", " "]
    assert pieces("stop", ["s"]) == []


# Chat templates


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{%- set ns = namespace(system='') %}{%- for m in messages %}{%- if m.role == 'system' %}"
    "{%- set ns.system = m.content | trim %}{%- continue %}{%- endif %}"
    "[{{ loop.index0 }} {{ m.role | upper }}] {{ ns.system ~ ' ' ~ m.content.strip() | replace('a', 'A') }}"
    "{%- if not loop.last %}{{ ' / ' }}{%- endif %}{%- endfor %} {{ messages | length }} "
    "{{ messages | map(attribute='role') | join(',') }} {{ {'é': [1, 'x<y']} | tojson }}"
)


TRACKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if tools is not none %}tools{% endif %}{{ documents }}"
)


@pytest.mark.parametrize("template", [CHATML, LLAMA, TRACKED])
def test_templates_give_what_transformers_gives(template: str) -> None:
    messages = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hallo <b>\n🙂 {{ x }}"},
        {"role": "assistant", "content": "a"},
    ]
    expected, _ = render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=True, bos_token="<s>"
    )
    assert render(ChatTemplate(template, {"bos_token": "<s>"}), messages) == expected[0]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "cannot be read"),
        ("{{ raise_exception('only user and assistant') }}", "only user and assistant"),
        ("{{ messages.append(1) }}", "unsafe|not safe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        ("{% for a in range(99999) %}{{ messages[0].content * 99999 }}{% endfor %}", "calculates"),
        ("{% for a in range(99999) %}{{ 'x' ~ 'y' ~ 'z' ~ messages }}{% endfor %}", "more than 1048576"),
        ("{% set n = namespace(t='xxxx') %}{% for a in range(99) %}{% set n.t = n.t ~ n.t %}{% endfor %}", "more than"),
        ("{% set n = namespace(t='xxxx') %}{% for a in range(99) %}{% set n.t = n.t + n.t %}{% endfor %}", "more than"),
        ("{% set x = messages[0].content %}{{ x.replace('', x).replace('', x) }}", "more than"),
        ("{% set x = messages[0].content %}{{ x | replace('', x) | replace('', x) }}", "more than"),
        ("{{ 'x'.center(10**9) }}", "unsafe|not safe"),
        ("{{ '%1000000000d' | format(1) }}", "cannot be read"),
        ("{{ 9 ** 99 }}", "calculates"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_templates_stay_within_their_bounds(template: str, reason: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputTextError, match=reason):
        render(ChatTemplate(template, {}), [{"role": "user", "content": "x" * 1000}])
    assert time.monotonic() - begun < 10


def test_a_long_prompt_is_no_fault_of_the_template() -> None:
    text = "x" * (MAX_CHARACTERS // 2)
    assert render(ChatTemplate(CHATML, {}), [{"role": "user", "content": text}]).count("x") == len(text)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "text",
        [{"role": "user"}],
        [{"role": "narrator", "content": "x"}],
        [{"role": "user", "content": 3}],
        [MESSAGES[0], "x"],
    ],
)
def test_what_are_no_messages(messages: Any) -> None:
    with pytest.raises(InputTextError, match="message"):
        check_messages(messages)
