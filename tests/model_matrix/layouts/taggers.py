"""Layouts of taggers, models for question answering, and masked language models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tests.model_matrix.layouts.embeddings import modern_pairs
from tests.model_matrix.layouts.folder import Model, TextFolder
from tests.model_matrix.layouts.labels import Entities, Masks, Spans
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.rerankers import DEBERTA, DEBERTA_KEPT, OLD_KEYS, ROBERTA, deberta_pieces, labels
from tests.model_matrix.layouts.vocabularies import bracketed_unigrams, byte_pairs, mpnet_pieces, unigrams, word_pieces

_tagger = in_area("token classification")
_answers = in_area("question answering")
_masks = in_area("fill-mask")

_CONLL = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
_CASED = partial(word_pieces, lower=False)
_MODERN = {
    "max_position_embeddings": 8192,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "hidden_activation": "gelu",
}


def _bio(kinds: Sequence[str]) -> dict[str, object]:
    return labels(["O", *(f"{side}-{kind}" for kind in kinds for side in "BI")])


_TAGGERS: tuple[Layout, ...] = (
    _tagger(
        "dslim/bert-base-NER",
        TextFolder(
            Model(
                "BertForTokenClassification",
                "bert",
                {**labels(_CONLL), "max_position_embeddings": 512},
                {"_num_labels": 9, "output_past": True},
            ),
            partial(_CASED, files=("vocab.txt",)),
        ),
        Entities(),
    ),
    _tagger(
        "dbmdz/bert-large-cased-finetuned-conll03-english",
        TextFolder(
            Model(
                "BertForTokenClassification",
                "bert",
                labels(("O", "B-LOC", "B-MISC", "B-ORG", "I-LOC", "I-MISC", "I-ORG", "I-PER")),
                {"_num_labels": 8, "directionality": "bidi"},
            ),
            _CASED,
        ),
        Entities(),
    ),
    _tagger(
        "FacebookAI/xlm-roberta-large-finetuned-conll03-english",
        TextFolder(
            Model(
                "XLMRobertaForTokenClassification",
                "xlm-roberta",
                {**ROBERTA, **labels(("B-LOC", "B-MISC", "B-ORG", "I-LOC", "I-MISC", "I-ORG", "I-PER", "O"))},
                {"_num_labels": 8, "output_past": True},
            ),
            unigrams,
        ),
        Entities(),
    ),
    _tagger(
        "Davlan/xlm-roberta-base-ner-hrl",
        TextFolder(
            Model(
                "XLMRobertaForTokenClassification",
                "xlm-roberta",
                {**ROBERTA, **_bio(("DATE", "PER", "ORG", "LOC"))},
                OLD_KEYS,
            ),
            unigrams,
        ),
        Entities(),
    ),
    _tagger(
        "Jean-Baptiste/camembert-ner",
        TextFolder(
            Model(
                "CamembertForTokenClassification",
                "camembert",
                {
                    **ROBERTA,
                    "bos_token_id": 5,
                    "eos_token_id": 6,
                    **labels(("O", "I-LOC", "I-PER", "I-MISC", "I-ORG")),
                },
                {"output_past": True},
            ),
            partial(unigrams, kind="CamembertTokenizer"),
        ),
        Entities(),
    ),
    _tagger(
        "Babelscape/wikineural-multilingual-ner",
        TextFolder(
            Model("BertForTokenClassification", "bert", {**labels(_CONLL), "pad_token_id": 0}, OLD_KEYS), _CASED
        ),
        Entities(),
    ),
    _tagger(
        "lakshyakh93/deberta_finetuned_pii",
        TextFolder(
            Model(
                "DebertaV2ForTokenClassification",
                "deberta-v2",
                {**DEBERTA, **_bio(("FIRSTNAME", "LASTNAME", "PHONE_NUMBER", "CITY", "EMAIL"))},
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        Entities(),
    ),
    _tagger(
        "iiiorg/piiranha-v1-detect-personal-information",
        TextFolder(
            Model(
                "DebertaV2ForTokenClassification",
                "deberta-v2",
                {**DEBERTA, **labels(("I-ACCOUNTNUM", "I-CITY", "I-EMAIL", "I-GIVENNAME", "I-SURNAME", "O"))},
                kept=DEBERTA_KEPT,
            ),
            partial(deberta_pieces, length=256),
        ),
        Entities(),
    ),
    _tagger(
        "Jean-Baptiste/roberta-large-ner-english",
        TextFolder(
            Model(
                "RobertaForTokenClassification",
                "roberta",
                {**ROBERTA, **labels(("O", "MISC", "PER", "ORG", "LOC"))},
                OLD_KEYS,
            ),
            partial(byte_pairs, prefix=True),
        ),
        Entities(),
    ),
    _tagger(
        "elastic/distilbert-base-uncased-finetuned-conll03-english",
        TextFolder(
            Model(
                "DistilBertForTokenClassification",
                "distilbert",
                {"max_position_embeddings": 512, **labels(_CONLL)},
                {"sinusoidal_pos_embds": False, "tie_weights_": True},
            ),
            partial(word_pieces, kind="DistilBertTokenizer"),
        ),
        Entities(),
    ),
    _tagger(
        "vblagoje/bert-english-uncased-finetuned-pos",
        TextFolder(
            Model(
                "BertForTokenClassification",
                "bert",
                labels(
                    [
                        "ADJ",
                        "ADP",
                        "ADV",
                        "AUX",
                        "CCONJ",
                        "DET",
                        "INTJ",
                        "NOUN",
                        "NUM",
                        "PART",
                        "PRON",
                        "PROPN",
                        "PUNCT",
                        "SCONJ",
                        "SYM",
                        "VERB",
                        "X",
                    ]
                ),
                OLD_KEYS,
            ),
            word_pieces,
        ),
        Entities(),
    ),
    _tagger(
        "d4data/biomedical-ner-all",
        TextFolder(
            Model(
                "DistilBertForTokenClassification",
                "distilbert",
                {"max_position_embeddings": 512, **_bio(("Age", "Sex", "Lab_value", "Sign_symptom", "Dosage"))},
            ),
            partial(word_pieces, kind="DistilBertTokenizer"),
        ),
        Entities(),
    ),
)

_QUESTIONS: tuple[Layout, ...] = (
    _answers(
        "deepset/roberta-base-squad2",
        TextFolder(
            Model(
                "RobertaForQuestionAnswering",
                "roberta",
                ROBERTA,
                {"language": "english", "name": "Roberta", **OLD_KEYS},
            ),
            partial(byte_pairs, files=("vocab.json", "merges.txt")),
        ),
        Spans(),
    ),
    _answers(
        "distilbert/distilbert-base-cased-distilled-squad",
        TextFolder(
            Model(
                "DistilBertForQuestionAnswering",
                "distilbert",
                {"max_position_embeddings": 512},
                {"qa_dropout": 0.1, "tie_weights_": True},
            ),
            partial(word_pieces, kind="DistilBertTokenizer", lower=False),
        ),
        Spans(),
    ),
    _answers(
        "deepset/deberta-v3-base-squad2",
        TextFolder(Model("DebertaV2ForQuestionAnswering", "deberta-v2", DEBERTA, kept=DEBERTA_KEPT), deberta_pieces),
        Spans(),
    ),
    _answers(
        "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad",
        TextFolder(Model("BertForQuestionAnswering", "bert", {"hidden_dropout_prob": 0.1}, OLD_KEYS), word_pieces),
        Spans(),
    ),
    _answers(
        "deepset/xlm-roberta-large-squad2",
        TextFolder(Model("XLMRobertaForQuestionAnswering", "xlm-roberta", ROBERTA, OLD_KEYS), unigrams),
        Spans(),
    ),
    _answers(
        "deepset/tinyroberta-squad2",
        TextFolder(Model("RobertaForQuestionAnswering", "roberta", ROBERTA, {"language": "english"}), byte_pairs),
        Spans(),
    ),
)

_MASKS: tuple[Layout, ...] = (
    _masks(
        "google-bert/bert-base-uncased",
        TextFolder(Model("BertForMaskedLM", "bert", keys=OLD_KEYS), word_pieces),
        Masks(),
    ),
    _masks(
        "google-bert/bert-base-multilingual-cased",
        TextFolder(Model("BertForMaskedLM", "bert", {"pad_token_id": 0}, {"directionality": "bidi"}), _CASED),
        Masks(),
    ),
    _masks(
        "FacebookAI/roberta-base",
        TextFolder(Model("RobertaForMaskedLM", "roberta", {**ROBERTA, "layer_norm_eps": 1e-05}), byte_pairs),
        Masks(),
    ),
    _masks(
        "FacebookAI/xlm-roberta-base",
        TextFolder(Model("XLMRobertaForMaskedLM", "xlm-roberta", ROBERTA, {"output_past": True}), unigrams),
        Masks(),
    ),
    _masks(
        "distilbert/distilbert-base-uncased",
        TextFolder(
            Model(
                "DistilBertForMaskedLM",
                "distilbert",
                {"max_position_embeddings": 512},
                {"sinusoidal_pos_embds": False, "tie_weights_": True},
            ),
            partial(word_pieces, kind="DistilBertTokenizer"),
        ),
        Masks(),
    ),
    _masks(
        "answerdotai/ModernBERT-base",
        TextFolder(
            Model(
                "ModernBertForMaskedLM",
                "modernbert",
                _MODERN,
                {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "sparse_prediction": False},
                kept=("local_attention",),
                without=("rope_parameters", "layer_types"),
            ),
            modern_pairs,
        ),
        Masks(),
    ),
    _masks(
        "albert/albert-base-v2",
        TextFolder(
            Model(
                "AlbertForMaskedLM",
                "albert",
                {"max_position_embeddings": 512, "embedding_size": 128, "hidden_act": "gelu_new"},
                {"net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0, "down_scale_factor": 1},
            ),
            partial(bracketed_unigrams, kind="AlbertTokenizer", lower=True),
        ),
        Masks(),
    ),
    _masks(
        "almanach/camembert-base",
        TextFolder(
            Model(
                "CamembertForMaskedLM",
                "camembert",
                {**ROBERTA, "bos_token_id": 5, "eos_token_id": 6},
                {"output_past": True},
            ),
            partial(unigrams, kind="CamembertTokenizer"),
        ),
        Masks(),
    ),
    _masks(
        "google/electra-small-generator",
        TextFolder(
            Model(
                "ElectraForMaskedLM",
                "electra",
                {"embedding_size": 128, "max_position_embeddings": 512, "summary_type": "first"},
            ),
            partial(word_pieces, kind="ElectraTokenizer"),
        ),
        Masks(),
    ),
    _masks(
        "microsoft/mpnet-base",
        TextFolder(Model("MPNetForMaskedLM", "mpnet", {"max_position_embeddings": 514}), mpnet_pieces),
        Masks(),
    ),
)

LAYOUTS = (*_TAGGERS, *_QUESTIONS, *_MASKS)
