"""What the science says: statuses with their sentences, and the records a computation returns."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.records import record

FloatArray: TypeAlias = NDArray[np.float64]


class _Explained(StrEnum):
    """A stored code whose `sentence` is what a person reads."""

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member


class RowStatus(StrEnum):
    """Outcome of one row of `layers`; every planned matrix has exactly one."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


class Role(StrEnum):
    """What a matrix does in its model, read from its name."""

    Q = "q"
    K = "k"
    V = "v"
    O = "o"  # noqa: E741 - the field's name for the attention output projection
    QKV = "qkv"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    GATE_UP = "gate_up"
    EMBED = "embed"
    POS_EMBED = "pos_embed"
    LM_HEAD = "lm_head"
    CLASSIFIER = "classifier"
    CONV = "conv"
    ROUTER = "router"
    RECURRENT = "recurrent"
    LORA = "lora"
    OTHER = "other"


class Scheme(StrEnum):
    """How quantised codes become weights; scanner/weights/dequant.py has the formula of each."""

    GPTQ = "gptq"
    AWQ = "awq"
    FLAT4 = "flat4"
    ROW8 = "row8"
    SCALED = "scaled"
    BLOCKS = "blocks"
    PACKED = "packed"
    FLOAT4 = "float4"
    FLOAT6 = "float6"
    INT4_ROWS = "int4_rows"


class SkipReason(_Explained):
    """Why a tensor is no row with numbers; stored in `status_reason`."""

    TOO_SMALL = "too_small", "the short side is below the minimum for spectral norms"
    TOO_LARGE = "too_large", "the short side exceeds max_evals_exact; raise it in the config to analyse it"
    NOT_A_MATRIX = "not_a_matrix", "a vector, scalar, mask, table or integer tensor has no spectrum"
    SKIP_DEPTHWISE = "skip_depthwise", "a depthwise convolution is a set of vectors, not a matrix"
    DUPLICATE_TIED = "duplicate_tied", "the same weights under a second name; the embedding has the row"
    LORA_PAIR = "lora_pair", "the second factor of a LoRA pair; the row of the first has both"
    DUPLICATE_LAYOUT = "duplicate_layout", "a second copy of the model in another file layout"
    NOT_SELECTED = "not_selected", "in a file that is not read: a variant, a copy, a checkpoint or an export"
    UNSUPPORTED_DTYPE = "unsupported_dtype", "this storage type is not decoded yet"
    UNSUPPORTED_QUANT = "unsupported_quant", "codes of a quantisation that is not read, or without its scales"
    QUANT_COMPANION = "quant_companion", "scales, zeros or indices that belong to the codes of another tensor"
    QUANT_LAYOUT_UNKNOWN = (
        "quant_layout_unknown",
        "the shapes of codes and scales do not fit their quantisation",
    )
    EMPTY = "empty", "the tensor has no elements"


class FailureKind(_Explained):
    """What went wrong; stored in `failures.kind`."""

    REPO_MISSING_OR_PRIVATE = (
        "repo_missing_or_private",
        "no such repository, or it is private: check the name, or log in with `hf auth login` or HF_TOKEN",
    )
    GATED = "gated", "the repository is gated: accept its terms on the hub, then set HF_TOKEN"
    REVISION_GONE = "revision_gone", "no such branch, tag or commit"
    ENTRY_MISSING = "entry_missing", "a file the repository lists is not there"
    DISABLED = "disabled", "the hub has disabled access to this repository"
    OFFLINE = "offline", "HF_HUB_OFFLINE is set; unset it or scan a local folder"
    HTTP_ERROR = "http_error", "the hub could not be reached or answered with an error"
    RANGE_IGNORED = "range_ignored", "the server ignores byte ranges, so tensors cannot be streamed"
    CDN_FORBIDDEN = "cdn_forbidden", "the storage server refused its own signed link twice"
    ETAG_CHANGED = "etag_changed", "the file changed while it was being read"
    SIZE_MISMATCH = "size_mismatch", "the file's size is not what the repository states"
    REDIRECT_REFUSED = "redirect_refused", "the server redirected to a host that is not allowed"
    STALLED = "stalled", "the transfer stopped making progress"
    INDEX_MISMATCH = "index_mismatch", "the index and the shards do not name the same tensors"
    LFS_POINTER = "lfs_pointer", "the file is a Git LFS pointer, not weights: fetch it with `git lfs pull`"
    NO_WEIGHTS = (
        "no_weights",
        "the repository has no safetensors weights: is it a model, and did its weights come with it?",
    )
    SKIPPED_PICKLE = "skipped_pickle", "only pickle weights; they are never unpickled: convert to safetensors"
    SKIPPED_GGUF = "skipped_gguf", "only GGUF weights, which are not read yet"
    BAD_HEADER = "bad_header", "the file is not a valid safetensors file"
    UNSAFE_PATH = "unsafe_path", "a file name that leaves the repository"
    QUANT_LAYOUT_UNKNOWN = "quant_layout_unknown", "the contents of codes and scales do not fit each other"
    LORA_SCALE = (
        "lora_scale",
        "the scale of a LoRA update is stated but means nothing: correct adapter_config.json",
    )
    NONFINITE = "nonfinite", "the weights contain NaN or Inf"
    READ_ERROR = "read_error", "the file could not be read"
    OUT_OF_MEMORY = "out_of_memory", "not enough memory for this matrix"
    EIGENSOLVER_ERROR = "eigensolver_error", "the eigensolver did not converge"
    WORKER_LOST = "worker_lost", "the worker process died on this unit"
    INTERNAL = "internal", "an unexpected error; please report it"


class Stage(StrEnum):
    """Where in the scan a failure happened."""

    LIST = "list"
    RESOLVE = "resolve"
    HEADER = "header"
    PLAN = "plan"
    READ = "read"
    DECODE = "decode"
    SPECTRUM = "spectrum"
    FIT = "fit"
    COMPARE = "compare"
    WRITE = "write"


class BlockStatus(StrEnum):
    """Outcome of one block of columns of a row (bulk, null, alternatives)."""

    OK = "ok"
    OFF = "off"
    TOO_SMALL = "too_small"
    FAILED = "failed"
    NO_BULK = "no_bulk"


class BaseStatus(_Explained):
    """What became of the comparison of a row with its base; every value but OK leaves its numbers NULL."""

    OK = "ok", "compared with its counterpart in the base"
    OFF = "off", "no comparison was asked for, or an adapter, or packed codes"
    NO_BASE = "no_base", "the card names no base, or the base could not be had (then it is in failures)"
    NO_MATCH = "no_match", "the base has no matrix of this name, part and expert"
    SHAPE_MISMATCH = "shape_mismatch", "the matrix of this name in the base has another shape"
    SAME_FILE = "same_file", "the file is the base's own, byte for byte, so nothing was compared"
    FAILED = "failed", "the base's weights could not be read or solved; failures says why"


class FitStatus(_Explained):
    """Outcome of the tail fit; every value but OK leaves the fit's columns NULL."""

    OK = "ok", "the tail was fitted"
    OFF = "off", "no fit was requested"
    TOO_FEW_EVALS = "too_few_evals", "fewer than 20 eigenvalues above the cut"
    NO_CANDIDATE = "no_candidate", "no xmin leaves a tail with alpha above 1"
    CONSTANT = "constant", "all eigenvalues are equal, so there is no tail"
    FAILED = "failed", "the estimator gave no finite answer"


class Phase(StrEnum):
    """The 5+1 phases of training (arXiv 1810.01075), with an honest seventh."""

    RANDOM_LIKE = "RANDOM-LIKE"
    BLEEDING_OUT = "BLEEDING-OUT"
    BULK_SPIKES = "BULK+SPIKES"
    BULK_DECAY = "BULK-DECAY"
    HEAVY_TAILED = "HEAVY-TAILED"
    RANK_COLLAPSE = "RANK-COLLAPSE"
    UNDECIDED = "UNDECIDED"


class FlagKind(_Explained):
    """A finding about a layer or a model; a finding is evidence, not a verdict."""

    FIT_UNRELIABLE = "fit_unreliable", "alpha of this layer is weak evidence"
    WELL_TRAINED = "well_trained", "a reliable tail with alpha where the theory has well-trained layers"
    UNDER_TRAINED = "under_trained", "a light tail: the layer looks under-trained"
    OVER_TRAINED = "over_trained", "a very heavy tail: the layer looks over-trained"
    NO_TAIL = "no_tail", "no power-law tail could be told from the bulk"
    SCALE_OUTLIER = "scale_outlier", "the layer's scale is far from that of its siblings"
    ZERO_MATRIX = "zero_matrix", "every entry is zero"
    NONFINITE = "nonfinite", "the weights contain NaN or Inf"
    RANDOM_LIKE = "random_like", "the spectrum is that of a random matrix"
    RANK_COLLAPSE = "rank_collapse", "part of the spectrum has collapsed to zero"
    CORRELATION_TRAP = "correlation_trap", "shuffling the entries leaves eigenvalues no random matrix has"
    ERG_VIOLATED = "erg_violated", "alpha is below 2 and the tail reaches beyond the trace-log condition"
    ANOMALOUS_ALPHA = "anomalous_alpha", "alpha is far from that of the same role in comparable models"
    DEPTH_IRREGULAR = "depth_irregular", "alpha jumps more from block to block than in comparable models"
    UNTRAINED_LIKE = "untrained_like", "the model as a whole looks untrained"
    SCALE_COLLAPSE = "scale_collapse", "the layer's scale left the base's far more than the other layers did"
    SCALE_SHIFT = "scale_shift", "most layers changed their scale against the base"
    FT_UNSTABLE = "ft_unstable", "fine-tuning changed the layer as an unstable run does"
    FT_NOOP = "ft_noop", "the weights are those of the base: a re-upload, or training without effect"


@dataclass(frozen=True, slots=True)
class Flag:
    """One finding: `value` broke `threshold`, and `sentence` says what that means."""

    kind: FlagKind
    value: float | None
    threshold: float | None
    sentence: str


@record()
class Spectrum:
    """Eigenvalues of W^T W (squared singular values; no 1/N, no centring) of one row of `layers`.

    `evals` is read-only, ascending, float64, unit weight^2, length M * kernel_size; `N` >= `M` are the
    sides of one slice; `slices` holds the same eigenvalues slice by slice (kernel_size, M) for a pooled
    convolution and is None for a plain matrix. `method` is gram_f64, svd_f64, gram_f32, or
    lora_qr for the min(r, M) eigenvalues of a product of rank r that can differ from zero.
    """

    evals: FloatArray
    N: int
    M: int
    method: str
    device: str = "cpu"
    slices: FloatArray | None = field(default=None, repr=False)

    @property
    def Q(self) -> float:
        """Aspect ratio N / M, at least 1."""
        return self.N / self.M

    @property
    def kernel_size(self) -> int:
        """Number of pooled slices."""
        return 1 if self.slices is None else len(self.slices)


@record()
class TailFit:
    """A power law fitted to the upper tail of a spectrum; all numbers None unless `status` is ok.

    alpha: density exponent, > 1 (any real number when the tail ends at xmax). xmin, xmax: tail limits, unit
    weight^2. D_ks: Kolmogorov-Smirnov distance in [0, 1]. n_tail: eigenvalues at or above xmin.
    alpha_stderr: (alpha-1)/sqrt(n_tail), or by Fisher information when the tail ends at xmax; it ignores the
    choice of xmin. tail_decades: log10(xmax/xmin). near_ties: candidates for xmin that input rounding could
    make the winner (1 = certain; not counted when the tail ends at xmax).
    """

    estimator: str
    status: FitStatus
    alpha: float | None = None
    alpha_stderr: float | None = None
    xmin: float | None = None
    xmax: float | None = None
    D_ks: float | None = None
    n_tail: int | None = None
    tail_decades: float | None = None
    near_ties: int | None = None
    alpha_trunc: float | None = None
    alpha_hill: float | None = None
