"""Layouts of text classifiers: sentiment, toxicity, languages, zero-shot, guards."""

from __future__ import annotations

from functools import partial

from tests.model_matrix.layouts.embeddings import modern_pairs
from tests.model_matrix.layouts.folder import Model, TextFolder
from tests.model_matrix.layouts.labels import Classes, ZeroShot
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.rerankers import DEBERTA, DEBERTA_KEPT, OLD_KEYS, ROBERTA, deberta_pieces, labels
from tests.model_matrix.layouts.vocabularies import bracketed_unigrams, byte_pairs, unigrams, word_pieces

_layout = in_area("text classification")

_SENTIMENT = ("negative", "neutral", "positive")
_EMOTIONS = """
    admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval disgust
    embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief remorse
    sadness surprise neutral
"""
_TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_LANGUAGES = "ja nl ar pl de it pt tr es hi el ur bg en fr zh ru th sw vi"
_MULTI = {"problem_type": "multi_label_classification"}
_SINGLE = {"problem_type": "single_label_classification"}
# Files of folders that were saved before there was tokenizer.json.
_OLD_PAIRS = partial(byte_pairs, files=("vocab.json", "merges.txt"))
_BART = {
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    "classifier_dropout": 0.0,
}

LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        TextFolder(
            Model(
                "DistilBertForSequenceClassification",
                "distilbert",
                {"max_position_embeddings": 512, "finetuning_task": "sst-2", **labels(("NEGATIVE", "POSITIVE"))},
                {"output_past": True, "sinusoidal_pos_embds": False, "tie_weights_": True},
            ),
            partial(word_pieces, kind="DistilBertTokenizer", files=("vocab.txt",)),
        ),
        Classes(),
    ),
    _layout(
        "cardiffnlp/twitter-roberta-base-sentiment-latest",
        TextFolder(
            Model("RobertaForSequenceClassification", "roberta", {**ROBERTA, **labels(_SENTIMENT)}, OLD_KEYS),
            partial(_OLD_PAIRS, length=10**30),
        ),
        Classes(),
    ),
    _layout(
        "cardiffnlp/twitter-xlm-roberta-base-sentiment",
        TextFolder(
            Model("XLMRobertaForSequenceClassification", "xlm-roberta", {**ROBERTA, **labels(_SENTIMENT)}, OLD_KEYS),
            unigrams,
        ),
        Classes(),
    ),
    _layout(
        "ProsusAI/finbert",
        TextFolder(
            Model(
                "BertForSequenceClassification",
                "bert",
                {"gradient_checkpointing": False, **labels(("positive", "negative", "neutral"))},
                {"position_embedding_type": "absolute", "type_vocab_size": 2},
            ),
            partial(word_pieces, files=("vocab.txt",)),
        ),
        Classes(),
    ),
    _layout(
        "nlptown/bert-base-multilingual-uncased-sentiment",
        TextFolder(
            Model(
                "BertForSequenceClassification",
                "bert",
                {**labels(("1 star", "2 stars", "3 stars", "4 stars", "5 stars")), "pad_token_id": 0},
                {
                    "_num_labels": 5,
                    "directionality": "bidi",
                    "pooler_fc_size": 768,
                    "pooler_type": "first_token_transform",
                },
            ),
            word_pieces,
        ),
        Classes(),
    ),
    _layout(
        "unitary/toxic-bert",
        TextFolder(
            Model("BertForSequenceClassification", "bert", {**labels(_TOXIC), **_MULTI}, {"model_max_length": 512}),
            partial(word_pieces, files=("vocab.txt",)),
        ),
        Classes(),
    ),
    _layout(
        "s-nlp/roberta_toxicity_classifier",
        TextFolder(
            Model("RobertaForSequenceClassification", "roberta", {**ROBERTA, **labels(("neutral", "toxic"))}, OLD_KEYS),
            _OLD_PAIRS,
        ),
        Classes(),
    ),
    _layout(
        "SamLowe/roberta-base-go_emotions",
        TextFolder(
            Model(
                "RobertaForSequenceClassification",
                "roberta",
                {**ROBERTA, **labels(_EMOTIONS.split()), **_MULTI},
                OLD_KEYS,
            ),
            byte_pairs,
        ),
        Classes(),
    ),
    _layout(
        "j-hartmann/emotion-english-distilroberta-base",
        TextFolder(
            Model(
                "RobertaForSequenceClassification",
                "roberta",
                {**ROBERTA, **labels(("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")), **_SINGLE},
                OLD_KEYS,
            ),
            byte_pairs,
        ),
        Classes(),
    ),
    _layout(
        "papluca/xlm-roberta-base-language-detection",
        TextFolder(
            Model(
                "XLMRobertaForSequenceClassification",
                "xlm-roberta",
                {**ROBERTA, **labels(_LANGUAGES.split()), **_SINGLE},
                OLD_KEYS,
            ),
            unigrams,
        ),
        Classes(),
    ),
    _layout(
        "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
        TextFolder(
            Model(
                "DebertaV2ForSequenceClassification",
                "deberta-v2",
                {**DEBERTA, **labels(("entailment", "neutral", "contradiction"))},
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        ZeroShot(),
    ),
    _layout(
        "MoritzLaurer/mDeBERTa-v3-base-mnli-xnli",
        TextFolder(
            Model(
                "DebertaV2ForSequenceClassification",
                "deberta-v2",
                {**DEBERTA, **labels(("entailment", "neutral", "contradiction"))},
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        Classes(pairs=True),
    ),
    _layout(
        "facebook/bart-large-mnli",
        TextFolder(
            Model(
                "BartForSequenceClassification",
                "bart",
                {**_BART, **labels(("contradiction", "neutral", "entailment"))},
                {"add_final_layer_norm": False, "normalize_before": False, "_num_labels": 3},
            ),
            partial(byte_pairs, kind="BartTokenizer", length=1024),
        ),
        ZeroShot(),
    ),
    _layout(
        "FacebookAI/roberta-large-mnli",
        TextFolder(
            Model(
                "RobertaForSequenceClassification",
                "roberta",
                {**ROBERTA, **labels(("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))},
                {"_num_labels": 3},
            ),
            byte_pairs,
        ),
        ZeroShot(),
    ),
    _layout(
        "MoritzLaurer/ModernBERT-large-zeroshot-v2.0",
        TextFolder(
            Model(
                "ModernBertForSequenceClassification",
                "modernbert",
                {
                    **labels(("entailment", "not_entailment")),
                    "max_position_embeddings": 8192,
                    "global_attn_every_n_layers": 3,
                    "local_attention": 128,
                    "classifier_pooling": "mean",
                },
                {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
                kept=("local_attention",),
                without=("rope_parameters", "layer_types"),
            ),
            modern_pairs,
        ),
        ZeroShot("This text is about {}"),
    ),
    _layout(
        "meta-llama/Llama-Prompt-Guard-2-86M",
        TextFolder(
            Model(
                "DebertaV2ForSequenceClassification",
                "deberta-v2",
                {**DEBERTA, **labels(("LABEL_0", "LABEL_1"))},
                {"legacy": True},
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        Classes(),
    ),
    _layout(
        "protectai/deberta-v3-base-prompt-injection-v2",
        TextFolder(
            Model(
                "DebertaV2ForSequenceClassification",
                "deberta-v2",
                {**DEBERTA, **labels(("SAFE", "INJECTION")), **_SINGLE},
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        Classes(),
    ),
    _layout(
        "textattack/albert-base-v2-SST-2",
        TextFolder(
            Model(
                "AlbertForSequenceClassification",
                "albert",
                {"max_position_embeddings": 512, "embedding_size": 128, "hidden_act": "gelu_new"},
                {"net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0, "down_scale_factor": 1},
            ),
            partial(bracketed_unigrams, kind="AlbertTokenizer", lower=True, do_lower_case=True, remove_space=True),
        ),
        Classes(),
    ),
    _layout(
        "mrm8488/distilroberta-finetuned-financial-news-sentiment-analysis",
        TextFolder(
            Model(
                "RobertaForSequenceClassification", "roberta", {**ROBERTA, **labels(_SENTIMENT), **_SINGLE}, OLD_KEYS
            ),
            byte_pairs,
        ),
        Classes(),
    ),
    _layout(
        "lxyuan/distilbert-base-multilingual-cased-sentiments-student",
        TextFolder(
            Model(
                "DistilBertForSequenceClassification",
                "distilbert",
                {"max_position_embeddings": 512, **labels(("positive", "neutral", "negative"))},
                {"output_past": True, "sinusoidal_pos_embds": False, "tie_weights_": True},
            ),
            partial(word_pieces, kind="DistilBertTokenizer", lower=False),
        ),
        Classes(),
    ),
)
