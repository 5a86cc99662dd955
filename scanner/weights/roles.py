"""What a tensor's name says: its role in the model and its depth."""

import re
from collections.abc import Iterable
from functools import lru_cache

from schemas.results import Role

_ATTENTION = r"(?:attn|attention|self_attn|crossattention|selfattention|encdecattention|mha)"

_RULES: tuple[tuple[re.Pattern[str], Role], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), role)
    for pattern, role in (
        (r"lora[._](?:linear_layer\.)?(?:a|b|up|down|embedding_a|embedding_b)\b", Role.LORA),
        (r"(?:^|\.)weight_(?:[ih]h|hr)(?:_|$)", Role.RECURRENT),
        (r"(?:^|[._])(?:rnn|lstm|gru)[\w]*(?:\.|$)", Role.RECURRENT),
        (
            r"(?:position_embeddings?|embed_positions|pos_embed(?:ding)?s?|positional_embedding|wpe"
            r"|relative_attention_bias|rel_embeddings)$",
            Role.POS_EMBED,
        ),
        (r"(?:^|\.)(?:cls|class|mask|dist|register|query)_tokens?$", Role.OTHER),
        (
            r"(?:^|\.)(?:(?:generator_)?lm_head(?:\.decoder)?|embed_out|predictions\.decoder|vocab_projector"
            r"|shared_head\.head)$|^output$|^transformer\.output_layer$",
            Role.LM_HEAD,
        ),
        (
            r"(?:embed_tokens|word_embeddings?|token_type_embeddings?|tok_embeddings|token_embedding|wte"
            r"|embed_in|(?:^|\.)shared|(?:^|\.)embeddings?|patch_embeddings?)$",
            Role.EMBED,
        ),
        (
            r"(?:query_key_value|qkv(?:_proj)?|c_attn|wqkv|w_pack|to_qkv|in_proj_weight)$"
            rf"|(?:^|[._]){_ATTENTION}(?:\.self)?\.in_proj$"
            r"|(?:^|\.)(?:kv|kv_proj|to_kv|kv_a_proj_with_mqa|kv_b_proj)$",
            Role.QKV,
        ),
        (r"(?:gate_up_proj|gate_up|(?:^|\.)input_linear|mlp\.(?:(?-i:Wi)|w12))$", Role.GATE_UP),
        (r"(?:^|\.)feed_forward\.key$|(?:^|\.)h\.\d+\.mlp\.w1$", Role.UP),
        (r"(?:^|\.)h\.\d+\.mlp\.w2$", Role.GATE),
        (r"(?:^|\.)feed_forward\.value$", Role.DOWN),
        (
            r"(?:^|\.)(?:(?:add_)?q_proj|q_[ab]_proj|q_attn|q_lin|query|query_proj|to_q|wq|q|queries)$",
            Role.Q,
        ),
        (r"(?:^|\.)(?:(?:add_)?k_proj|k_lin|key|key_proj|to_k|wk|k|keys)$", Role.K),
        (r"(?:^|\.)(?:(?:add_)?v_proj|v_lin|value|value_proj|to_v|wv|v|values)$", Role.V),
        (r"(?:^|\.)(?:o_proj|to_out(?:\.0)?|to_add_out|out_lin)$", Role.O),
        (
            rf"(?:^|[._]){_ATTENTION}\w*(?:\.(?:self|output|attention))*\.(?:out_proj|dense|proj|c_proj|o|wo|output)$",
            Role.O,
        ),
        (
            r"(?:^|\.)(?:router(?:\.layer)?|(?:block_sparse_moe|mlp|moe|ffn)\.gate|gate\.wg|shared_expert_gate)$",
            Role.ROUTER,
        ),
        (r"(?:^|\.)(?:gate_proj|gate|w1|wi_0|fc1_g)$", Role.GATE),
        (
            r"(?:^|\.)(?:up_proj|fc1|fc1_x|mlp\.fc_in|lin1|c_fc|dense_h_to_4h|intermediate[._]dense|wi(?:_1)?|w3"
            r"|linear1|experts\.mlp\.v1|pwconv1|proj_mlp|albert_layers\.\d+\.ffn|ff(?:_context)?\.net\.0\.proj)$",
            Role.UP,
        ),
        (
            r"(?:^|\.)(?:down_proj|fc2|mlp\.fc_out|lin2|mlp\.c_proj|dense_4h_to_h|output[._]dense|wo|w2|linear2"
            r"|pwconv2|ffn_output|output_linear|ff(?:_context)?\.net\.2)$",
            Role.DOWN,
        ),
        (
            r"(?:^|\.)(?:(?:classifier|classification_head)(?:\.dense|\.out_proj|\.\d+)?|score|seq_relationship"
            r"|dense_prediction|(?:^|model\.)head|qa_outputs)$|^(?:module\.)?(?:fc|linear|head)$",
            Role.CLASSIFIER,
        ),
    )
)

_NO_MATRIX = re.compile(
    r"(?:^|[._])(?:inv_freq|position_ids|masked_bias|relative_position_index|rotary_emb\.\w+|cos_cached|sin_cached"
    r"|attn\.bias|attention\.bias|num_batches_tracked|running_mean|running_var|token_type_ids)$",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(?<=\.)(?:[3-9]|\d\d+)(?=\.)|\d{3,}")
"""Numbers that no rule spells out: the rules say the same of two names that differ in nothing else."""

_WEIGHT = re.compile(r"(?:\.|(?<!in_proj)_)(?:weight|kernel)(?:_orig)?$")
_BLOCK = re.compile(r"^(.*?)(?:^|\.)(\d+)(?:\.|$)")
_WORDS = r"(?:(?!\d+\.)[^.]+\.)*"
_STAGED = re.compile(
    rf"^({_WORDS}(?:(?!\d+\.)[^.]*\d|(?:stages|layers)\.\d+\.(?:blocks|layers)|(?:stages|blocks|features)\.\d+))"
    r"\.(\d+)(?:\.|$)"
)
"""Blocks numbered within stages: `layer1.0`, `stages.0.layers.1`, `layers.0.blocks.1`, `blocks.0.1`."""


def role(name: str, ndim: int) -> Role:
    """Role of the tensor called `name`; a tensor of more than two axes with no telling name is a conv."""
    found = _told(_COUNTED.sub("333", _WEIGHT.sub("", name)))
    if ndim > 3 and found is Role.CLASSIFIER:
        return Role.CONV
    return found or (Role.CONV if ndim > 2 else Role.OTHER)


@lru_cache(maxsize=4096)
def _told(stem: str) -> Role | None:
    """What the rules say: 50 us, once for all blocks of a model."""
    return next((found for pattern, found in _RULES if pattern.search(stem)), None)


def is_table(name: str) -> bool:
    """Whether the name marks a buffer (mask, index, rotary table, running statistic), not weights."""
    return bool(_NO_MATRIX.search(name))


def layer_indices(names: Iterable[str]) -> dict[str, int]:
    """Block number of every name that has one.

    It is the first all-digit part of the dotted name. Blocks that are numbered anew within each stage
    (`layer1.0`, `layer1.1`, `layer2.0`; `stages.0.layers.1`) are counted through in natural order; a tensor
    between such blocks has no number.
    """
    first = {name: match for name in names if (match := _BLOCK.match(name))}
    staged = {name: match for name in first if (match := _STAGED.match(name))}
    order = sorted(
        {(m.group(1), m.group(2)) for m in staged.values()}, key=lambda pair: (natural(pair[0]), int(pair[1]))
    )
    counted = {pair: i for i, pair in enumerate(order)}
    stages = {stage.rpartition(".")[0] for stage, _ in order}
    plain = {
        name: int(m.group(2))
        for name, m in first.items()
        if name[: m.end(2)] not in stages and name not in staged
    }
    return plain | {name: counted[m.group(1), m.group(2)] for name, m in staged.items()}


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key under which `layer.10` follows `layer.9`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
