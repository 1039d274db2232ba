"""Arrow schemas of every table that the workflow writes. A column missing here exists nowhere."""

import pyarrow as pa

from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF

_tags = pa.list_(pa.string())
_aspects = [(column, _tags) for column in TAGS_OF.values()]
_present = [(column, pa.list_(pa.float32())) for column in PRESENT_PROB_OF.values()]
_audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the datasets library's Audio

CLIPS = pa.schema(
    [
        ("ytid", pa.string()),
        ("start_s", pa.int32()),
        ("end_s", pa.int32()),
        ("audioset_positive_labels", pa.string()),
        ("aspect_list", _tags),
        ("caption", pa.string()),
        ("author_id", pa.int32()),
        ("is_balanced_subset", pa.bool_()),
        ("is_audioset_eval", pa.bool_()),
    ]
)
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("ytid", pa.string()),
        ("caption", pa.string()),
        ("aspect_list", _tags),
        *_aspects,
        ("split", pa.string()),
    ]
)
DISTILL_LEDGER = pa.schema(
    [("ytid", pa.string()), ("status", pa.string()), ("reason", pa.string())]
)
LEDGER = pa.schema([("id", pa.string()), ("status", pa.string()), ("reason", pa.string())])
VAE_HISTORY = pa.schema(
    [
        ("epoch", pa.int32()),
        ("train_loss", pa.float64()),  # nats per row, KL weighted by beta
        ("heldout_loss", pa.float64()),
        ("heldout_jaccard", pa.float64()),
    ]
)
FINETUNING = pa.schema(  # a row per optimiser step; step 0 is the model without an adapter
    [
        ("step", pa.int32()),
        ("epoch", pa.float64()),  # passes over the training pairs
        ("loss", pa.float64()),  # of the step's rows, nats a token
        ("validation_loss", pa.float64()),  # null where it was not looked at
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),
    ]
)
TAG_MODELS = pa.schema(
    [
        ("model", pa.string()),  # "data": real sets against real sets
        ("name", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int32()),
        ("direction", pa.string()),
    ]
)
TAG_SWEEP = pa.schema(  # one row a run, measured on validation rows
    [
        ("beta", pa.float64()),
        ("crossover", pa.float64()),
        *(
            (name, pa.float64())
            for name in (
                "heldout_jaccard",
                "heldout_hamming",
                "heldout_log_likelihood",
                "prior_cooccurrence_cosine",
                "prior_marginal_mae",
                "prior_enough_categories",
                "prior_contradictions",
                "prior_unique",
                "prior_novel",
                "prior_nearest_train",
                "prior_c2st_auc",
            )
        ),
        ("holds", pa.bool_()),  # every bar
        ("chosen", pa.bool_()),
    ]
)
VAE_LATENT = pa.schema(  # where the encoder puts each pair
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("genre_aspects", _tags),
        ("mean", pa.list_(pa.float32())),  # of q(z|x)
    ]
)
TAGS = pa.schema(
    [
        ("id", pa.string()),
        ("aspect_list", _tags),
        *_aspects,
        ("given", _tags),  # tags the sample was conditioned on; empty when sampled freely
        ("seed", pa.uint64()),  # item seed of the candidate that was accepted
    ]
)
CAPTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("caption", pa.string()),
        ("prompt", pa.string()),
        ("n_tokens", pa.int32()),
        ("seed", pa.uint64()),
        ("model", pa.string()),  # id@revision, "+adapter" where one is applied
    ]
)
DRAFTS = pa.schema(  # every text that was written for an item, in order
    [
        ("id", pa.string()),
        ("attempt", pa.int32()),  # from 0
        ("caption", pa.string()),
        ("n_tokens", pa.int32()),
        ("seed", pa.uint64()),
        ("status", pa.string()),  # "ok": it is the item's caption; otherwise the check that failed
        ("reason", pa.string()),
        ("tag_recall", pa.float64()),  # share of the item's tags that it names; null without tags
    ]
)
AUDIO = pa.schema(
    [
        ("id", pa.string()),
        ("audio", _audio),  # 16-bit FLAC
        ("sampling_rate", pa.int32()),
        ("duration_s", pa.float64()),
        ("gain_db", pa.float64()),  # level change applied before the 16-bit conversion
        ("seed", pa.uint64()),
        ("sha256", pa.string()),  # of the FLAC bytes
        ("model", pa.string()),
        ("codes", pa.binary()),  # EnCodec codes, little-endian int16 [codebooks, frames]
        ("codebooks", pa.int16()),
        ("codes_sha256", pa.string()),
    ]
)
TAKES = pa.schema(  # every clip that was played for an item, in order, with what was measured of it
    [
        ("id", pa.string()),
        ("attempt", pa.int32()),  # from 0
        ("seed", pa.uint64()),
        ("status", pa.string()),  # "ok": it is the item's clip; otherwise the check that failed
        ("reason", pa.string()),
        ("codes_sha256", pa.string()),
        ("text_truncated", pa.bool_()),  # the caption is longer than the text encoder reads
        *[
            (
                name,
                pa.float64(),
            )  # of the wave before its level was set; null where it is not finite
            for name in (
                "rms_dbfs",
                "peak_dbfs",
                "lufs",
                "silent_share",
                "clipped_share",
                "dc",
                "bandwidth_hz",
                "repetition",
            )
        ],
    ]
)
REAL_AUDIO = pa.schema(
    [
        (name, AUDIO.field(name).type)
        for name in ("id", "audio", "sampling_rate", "duration_s", "sha256")
    ]
)
GENRE_CLIPS = REAL_AUDIO.append(pa.field("genre", pa.string()))
MINIATURE = REAL_AUDIO
for _field in (
    ("kind", pa.string()),
    ("aspect_list", pa.list_(pa.string())),
    ("caption", pa.string()),
):
    MINIATURE = MINIATURE.append(pa.field(*_field))
CLAP = pa.schema(
    [
        ("id", pa.string()),
        ("clap_score", pa.float64()),  # cosine of caption and mean-pooled audio embedding
        ("clap_min", pa.float64()),  # over the clip's windows
        ("clap_max", pa.float64()),
        ("text_truncated", pa.bool_()),
        ("audio_embedding", pa.list_(pa.float32())),  # unit norm
        ("text_embedding", pa.list_(pa.float32())),
        ("embedding_key", pa.string()),  # hash of audio, weights and preprocessing
    ]
)
EMBEDDINGS = pa.schema(
    [
        ("id", pa.string()),
        ("audio_embedding", pa.list_(pa.float32())),
        ("embedding_key", pa.string()),
    ]
)
TCAV = pa.schema(  # a row per layer, concept and class
    [
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("category", pa.string()),
        ("genre", pa.string()),  # the class whose logit is differentiated
        ("tcav", pa.float64()),  # mean over the random sets, share of clips in [0, 1]
        ("tcav_sd", pa.float64()),
        ("null_mean", pa.float64()),  # the same statistic for random against random
        ("null_sd", pa.float64()),
        ("effect", pa.float64()),  # tcav - null_mean
        ("effect_low", pa.float64()),  # 95 % interval
        ("effect_high", pa.float64()),
        ("alignment", pa.float64()),  # mean cosine of CAV and gradient; the null's is 0
        ("p_value", pa.float64()),  # two-sided Welch t-test of the alignment
        ("p_holm", pa.float64()),  # corrected over all rows of the table
        ("p_permutation", pa.float64()),  # of the alignment, when the clips' labels are exchanged
        ("significant", pa.bool_()),  # p_holm and p_permutation are both below tcav.alpha
        ("relative", pa.float64()),  # score against the category's other clips; null: too few
        ("relative_p", pa.float64()),  # its t-test's p-value, Holm-corrected over these alone
        ("relative_significant", pa.bool_()),
        ("cosine_share", pa.float64()),  # the reference's figure: activations with cosine > 0.1
        ("cav_accuracy", pa.float64()),  # balanced accuracy on held-out concept clips
        ("cav_auc", pa.float64()),
        ("cav_p", pa.float64()),  # permutation p-value of cav_auc
        ("pattern_cosine", pa.float64()),  # of the classifier CAV with the pattern CAV
        ("sets_shared", pa.float64()),  # share of clips that two CAVs have in common; 0: disjoint
        ("n_positive", pa.int32()),  # clips with the tag
        ("n_concept", pa.int32()),  # clips in a set
        ("n_random_sets", pa.int32()),
        ("n_class", pa.int32()),
        ("control", pa.string()),  # "" for a real concept, else "shuffled" or "planted"
        ("alignments", pa.list_(pa.float32())),  # per random set
        ("null_alignments", pa.list_(pa.float32())),  # per pair of random sets, in both orders
    ]
)
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        *_present,  # parallel to the clip's own tags; null where a tag cannot be judged
        ("verified", pa.bool_()),  # all tags whose listener was calibrated are heard, and one was
        ("present_prob", pa.list_(pa.float32())),  # of every tag, in the order of the audit's card
    ]
)
DATASET = pa.schema(
    [
        ("id", pa.string()),
        ("caption", pa.string()),
        ("aspect_list", pa.string()),  # the printed Python list, as in the published card
        *_aspects,
        ("file_name", pa.string()),
        ("split", pa.string()),
        ("clap_score", pa.float64()),
        *_present,  # the audit's: parallel to the tags of the category; null: not judged
        ("verified", pa.bool_()),  # null: the clip was not audited
        ("audio_shard", pa.string()),
        ("audio_row", pa.int32()),
        ("duration_s", pa.float64()),
        ("seed", pa.uint64()),
        ("caption_model", pa.string()),  # id@revision, "+adapter" where one is applied
        ("audio_model", pa.string()),
        ("licence", pa.string()),  # hub identifier, derived from the run's sources
        ("provenance", pa.string()),  # run id; <results>/run/provenance.json has the rest
    ]
)
