"""What a tensor's name says: its role in the model and its depth."""

import re
from collections.abc import Iterable

from schemas.results import Role

_ATTENTION = r"(?:attn|attention|self_attn|crossattention|selfattention|encdecattention|mha)"

_RULES: tuple[tuple[re.Pattern[str], Role], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), role)
    for pattern, role in (
        (r"lora[._](?:linear_layer\.)?(?:a|b|up|down|embedding_a|embedding_b)\b", Role.LORA),
        (r"(?:^|\.)weight_[ih]h_", Role.RECURRENT),
        (r"(?:^|[._])(?:rnn|lstm|gru)[\w]*(?:\.|$)", Role.RECURRENT),
        (
            r"(?:position_embeddings?|embed_positions|pos_embed(?:ding)?s?|positional_embedding|wpe"
            r"|relative_attention_bias)$",
            Role.POS_EMBED,
        ),
        (r"(?:^|\.)(?:lm_head(?:\.decoder)?|embed_out|predictions\.decoder)$|^output$", Role.LM_HEAD),
        (
            r"(?:embed_tokens|word_embeddings?|token_type_embeddings?|tok_embeddings|token_embedding|wte"
            r"|embed_in|(?:^|\.)shared|(?:^|\.)embeddings?|patch_embeddings?)$",
            Role.EMBED,
        ),
        (r"(?:query_key_value|qkv(?:_proj)?|c_attn|wqkv|in_proj|to_qkv)$", Role.QKV),
        (r"(?:gate_up_proj|gate_up)$", Role.GATE_UP),
        (r"(?:^|\.)(?:q_proj|q_lin|query|query_proj|to_q|wq|q|queries)$", Role.Q),
        (r"(?:^|\.)(?:k_proj|k_lin|key|key_proj|to_k|wk|k|keys)$", Role.K),
        (r"(?:^|\.)(?:v_proj|v_lin|value|value_proj|to_v|wv|v|values)$", Role.V),
        (r"(?:^|\.)(?:o_proj|to_out(?:\.0)?|out_lin)$", Role.O),
        (
            rf"(?:^|[._]){_ATTENTION}\w*(?:\.(?:self|output|attention))*\.(?:out_proj|dense|proj|c_proj|o|wo|output)$",
            Role.O,
        ),
        (r"(?:^|\.)(?:router|(?:block_sparse_moe|mlp|moe|ffn)\.gate|gate\.wg)$", Role.ROUTER),
        (r"(?:^|\.)(?:gate_proj|gate|w1|wi_0)$", Role.GATE),
        (
            r"(?:^|\.)(?:up_proj|fc1|lin1|c_fc|dense_h_to_4h|intermediate\.dense|wi(?:_1)?|w3|linear1"
            r"|ff(?:_context)?\.net\.0\.proj)$",
            Role.UP,
        ),
        (
            r"(?:^|\.)(?:down_proj|fc2|lin2|mlp\.c_proj|dense_4h_to_h|output\.dense|wo|w2|linear2"
            r"|ff(?:_context)?\.net\.2)$",
            Role.DOWN,
        ),
        (
            r"(?:^|\.)(?:classifier(?:\.dense|\.out_proj|\.\d+)?|score|seq_relationship|(?:^|model\.)head|qa_outputs)$"
            r"|^(?:module\.)?(?:fc|linear|head)$",
            Role.CLASSIFIER,
        ),
    )
)

_NO_MATRIX = re.compile(
    r"(?:^|[._])(?:inv_freq|position_ids|masked_bias|relative_position_index|rotary_emb\.\w+|cos_cached|sin_cached"
    r"|attn\.bias|attention\.bias|num_batches_tracked|running_mean|running_var|token_type_ids)$",
    re.IGNORECASE,
)
_WEIGHT = re.compile(r"[._](?:weight|kernel)(?:_orig)?$")
_BLOCK = re.compile(r"^(.*?)(?:^|\.)(\d+)(?:\.|$)")


def role(name: str, ndim: int) -> Role:
    """Role of the tensor called `name`; a tensor of more than two axes with no telling name is a conv."""
    stem = _WEIGHT.sub("", name)
    for pattern, found in _RULES:
        if pattern.search(stem):
            return Role.CONV if ndim > 3 and found is Role.CLASSIFIER else found
    return Role.CONV if ndim > 2 else Role.OTHER


def is_table(name: str) -> bool:
    """Whether the name marks a buffer (mask, index, rotary table, running statistic), not weights."""
    return bool(_NO_MATRIX.search(name))


def layer_indices(names: Iterable[str]) -> dict[str, int]:
    """Block number of every name that has one.

    It is the first all-digit part of the dotted name. Where the part before it is itself numbered
    (`layer1.0`, `layer1.1`, `layer2.0`), blocks are counted through in natural order.
    """
    found = {name: match for name in names if (match := _BLOCK.match(name))}
    staged = {match.group(1) for match in found.values() if re.search(r"\d", match.group(1))}
    order = sorted(
        {(m.group(1), m.group(2)) for m in found.values() if m.group(1) in staged},
        key=lambda pair: (natural(pair[0]), int(pair[1])),
    )
    counted = {pair: i for i, pair in enumerate(order)}
    return {n: counted.get((m.group(1), m.group(2)), int(m.group(2))) for n, m in found.items()}


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key under which `layer.10` follows `layer.9`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
