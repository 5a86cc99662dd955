"""Roles and depths of the names that real libraries write."""

import re

import pytest

from scanner.weights.roles import _RULES, _WEIGHT, is_table, layer_indices, natural, role
from schemas.results import Role

NAMES = """
bert.embeddings.word_embeddings.weight embed
bert.embeddings.position_embeddings.weight pos_embed
bert.embeddings.token_type_embeddings.weight embed
bert.encoder.layer.0.attention.self.query.weight q
bert.encoder.layer.0.attention.self.key.weight k
bert.encoder.layer.0.attention.self.value.weight v
bert.encoder.layer.0.attention.output.dense.weight o
bert.encoder.layer.0.intermediate.dense.weight up
bert.encoder.layer.0.output.dense.weight down
bert.pooler.dense.weight other
cls.predictions.transform.dense.weight other
cls.predictions.decoder.weight lm_head
cls.seq_relationship.weight classifier
classifier.weight classifier
classifier.dense.weight classifier
classifier.out_proj.weight classifier
qa_outputs.weight classifier
distilbert.transformer.layer.0.attention.q_lin.weight q
distilbert.transformer.layer.0.attention.out_lin.weight o
distilbert.transformer.layer.0.ffn.lin1.weight up
distilbert.transformer.layer.0.ffn.lin2.weight down
wte.weight embed
wpe.weight pos_embed
transformer.h.0.attn.c_attn.weight qkv
transformer.h.0.attn.c_proj.weight o
transformer.h.0.mlp.c_fc.weight up
transformer.h.0.mlp.c_proj.weight down
lm_head.weight lm_head
gpt_neox.embed_in.weight embed
gpt_neox.layers.0.attention.query_key_value.weight qkv
gpt_neox.layers.0.attention.dense.weight o
gpt_neox.layers.0.mlp.dense_h_to_4h.weight up
gpt_neox.layers.0.mlp.dense_4h_to_h.weight down
embed_out.weight lm_head
model.embed_tokens.weight embed
model.layers.3.self_attn.q_proj.weight q
model.layers.3.self_attn.k_proj.weight k
model.layers.3.self_attn.v_proj.weight v
model.layers.3.self_attn.o_proj.weight o
model.layers.3.self_attn.qkv_proj.weight qkv
model.layers.3.mlp.gate_proj.weight gate
model.layers.3.mlp.up_proj.weight up
model.layers.3.mlp.down_proj.weight down
model.layers.3.mlp.gate_up_proj.weight gate_up
score.weight classifier
model.layers.0.block_sparse_moe.gate.weight router
model.layers.0.block_sparse_moe.experts.7.w1.weight gate
model.layers.0.block_sparse_moe.experts.7.w2.weight down
model.layers.0.block_sparse_moe.experts.7.w3.weight up
model.layers.0.mlp.gate.weight router
model.layers.0.mlp.router.weight router
model.layers.1.mlp.experts.0.gate_proj.weight gate
model.layers.1.mlp.shared_experts.up_proj.weight up
model.layers.0.mlp.experts.gate_up_proj gate_up 3
model.layers.0.mlp.experts.down_proj down 3
shared.weight embed
encoder.block.0.layer.0.SelfAttention.q.weight q
encoder.block.0.layer.0.SelfAttention.k.weight k
encoder.block.0.layer.0.SelfAttention.v.weight v
encoder.block.0.layer.0.SelfAttention.o.weight o
encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight pos_embed
encoder.block.0.layer.1.DenseReluDense.wi.weight up
encoder.block.0.layer.1.DenseReluDense.wi_0.weight gate
encoder.block.0.layer.1.DenseReluDense.wi_1.weight up
encoder.block.0.layer.1.DenseReluDense.wo.weight down
decoder.block.0.layer.1.EncDecAttention.o.weight o
model.decoder.layers.0.encoder_attn.out_proj.weight o
model.decoder.embed_positions.weight pos_embed
vit.embeddings.patch_embeddings.projection.weight conv 4
vit.embeddings.position_embeddings pos_embed 3
vit.encoder.layer.0.attention.attention.query.weight q
vit.encoder.layer.0.attention.output.dense.weight o
blocks.0.attn.qkv.weight qkv
blocks.0.attn.proj.weight o
blocks.0.mlp.fc1.weight up
blocks.0.mlp.fc2.weight down
head.weight classifier
text_model.embeddings.token_embedding.weight embed
text_model.embeddings.position_embedding.weight pos_embed
conv1.weight conv 4
layer1.0.conv1.weight conv 4
layer1.0.downsample.0.weight conv 4
features.0.weight conv 4
classifier.6.weight classifier
fc.weight classifier
fc.weight conv 4
linear.weight classifier
module.linear.weight classifier
conv_in.weight conv 4
time_embedding.linear_1.weight other
down_blocks.0.resnets.0.conv1.weight conv 4
down_blocks.0.resnets.0.time_emb_proj.weight other
down_blocks.0.downsamplers.0.conv.weight conv 4
down_blocks.0.attentions.0.proj_in.weight conv 4
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight q
down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight k
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v.weight v
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight o
down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.weight up
down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2.weight down
transformer.layers.0.self_attn.in_proj_weight qkv
transformer.layers.0.self_attn.out_proj.weight o
transformer.layers.0.linear1.weight up
transformer.layers.0.linear2.weight down
lstm.weight_ih_l0 recurrent
rnn.weight_hh_l0_reverse recurrent
base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight lora
base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight lora
unet.down_blocks.0.attentions.0.to_q.lora.up.weight lora
text_encoder.layers.0.q_proj.lora_down.weight lora
"""


@pytest.mark.parametrize("line", NAMES.strip().splitlines())
def test_real_names(line):
    name, expected, *axes = line.split()
    assert role(name, int(axes[0]) if axes else 2) == Role(expected)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 10, 23, 333, 1000])
def test_a_block_s_number_gets_what_the_rules_say_of_it(number):
    """Names are asked for once for all numbers that no rule spells out, so every number must agree."""
    for line in NAMES.strip().splitlines():
        name = line.split()[0]
        for place in re.finditer(r"\d+", name):
            renamed = name[: place.start()] + str(number) + name[place.end() :]
            stem = _WEIGHT.sub("", renamed)
            said = next((found for pattern, found in _RULES if pattern.search(stem)), Role.OTHER)
            assert role(renamed, 2) is said, renamed


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("embeddings.position_ids", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("h.0.attn.bias", True),
        ("h.0.attn.masked_bias", True),
        ("bn1.running_mean", True),
        ("bn1.num_batches_tracked", True),
        ("attention.bias.weight", False),
        ("embeddings.position_embeddings.weight", False),
    ],
)
def test_tables(name, table):
    assert is_table(name) is table


def test_blocks_of_a_transformer():
    found = layer_indices(["h.0.attn.c_attn.weight", "h.11.mlp.c_fc.weight", "wte.weight", "ln_f.weight"])
    assert found == {"h.0.attn.c_attn.weight": 0, "h.11.mlp.c_fc.weight": 11}


def test_the_first_number_is_the_block():
    assert layer_indices(["model.layers.5.mlp.experts.3.w1.weight"]) == {
        "model.layers.5.mlp.experts.3.w1.weight": 5
    }


def test_stages_of_a_resnet_are_counted_through_in_natural_order():
    names = [f"layer{stage}.{block}.conv1.weight" for stage in (10, 2, 1) for block in (1, 0)]
    assert layer_indices(["conv1.weight", *names]) == {
        "layer1.0.conv1.weight": 0,
        "layer1.1.conv1.weight": 1,
        "layer2.0.conv1.weight": 2,
        "layer2.1.conv1.weight": 3,
        "layer10.0.conv1.weight": 4,
        "layer10.1.conv1.weight": 5,
    }


def test_natural_order():
    assert sorted(["l10", "l9", "l", "l9.2", "l9.10"], key=natural) == ["l", "l9", "l9.2", "l9.10", "l10"]
