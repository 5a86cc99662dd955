"""What is read from the names that real libraries write: role, block number, and the parts of fused tensors.

Names are those of the published checkpoints, sizes are small. A line: name, role, block or -, parts or -, shape.
"""

import pytest
from laid import laid

from scanner.weights.matrices import plan_matrices
from schemas.config import MatrixRules

HEADS = {"hidden_size": 48, "num_attention_heads": 6}

FAMILIES = {
    "llama": (
        {"model_type": "llama"},
        """
model.embed_tokens.weight embed - - 48x48
model.layers.12.self_attn.q_proj.weight q 12 - 48x48
model.layers.12.self_attn.o_proj.weight o 12 - 48x48
model.layers.12.mlp.gate_proj.weight gate 12 - 48x48
model.layers.12.self_attn.q_norm.weight other 12 - 48
lm_head.weight lm_head - - 48x48
model.language_model.layers.3.self_attn.k_proj.weight k 3 - 48x48
language_model.model.layers.3.mlp.down_proj.weight down 3 - 48x48
model.language_model.embed_tokens.weight embed - - 48x48
language_model.lm_head.weight lm_head - - 48x48
model.layers.0.per_layer_input_gate.weight other 0 - 48x48
""",
    ),
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 48, "n_head": 6},
        """
transformer.wte.weight embed - - 48x48
transformer.wpe.weight pos_embed - - 48x48
transformer.h.7.attn.c_attn.weight qkv 7 q,k,v 48x144
transformer.h.7.crossattention.c_attn.weight qkv 7 - 48x96
transformer.h.7.crossattention.q_attn.weight q 7 - 48x48
transformer.h.7.attn.c_proj.weight o 7 - 48x48
transformer.h.7.crossattention.c_proj.weight o 7 - 48x48
transformer.h.7.mlp.c_fc.weight up 7 - 48x48
transformer.h.7.mlp.c_proj.weight down 7 - 48x48
""",
    ),
    "gptj and gpt-neo": (
        {"model_type": "gptj"},
        """
transformer.h.2.attn.q_proj.weight q 2 - 48x48
transformer.h.2.attn.out_proj.weight o 2 - 48x48
transformer.h.2.mlp.fc_in.weight up 2 - 48x48
transformer.h.2.mlp.fc_out.weight down 2 - 48x48
transformer.h.2.attn.attention.out_proj.weight o 2 - 48x48
""",
    ),
    "gpt-neox": (
        {"model_type": "gpt_neox", **HEADS},
        """
gpt_neox.layers.5.attention.query_key_value.weight qkv 5 q,k,v 144x48
gpt_neox.layers.5.attention.dense.weight o 5 - 48x48
gpt_neox.layers.5.mlp.dense_h_to_4h.weight up 5 - 48x48
gpt_neox.layers.5.mlp.dense_4h_to_h.weight down 5 - 48x48
embed_out.weight lm_head - - 48x48
""",
    ),
    "bloom": (
        {"model_type": "bloom", "hidden_size": 48, "n_head": 6},
        """
transformer.word_embeddings.weight embed - - 48x48
transformer.h.4.self_attention.query_key_value.weight qkv 4 q,k,v 144x48
transformer.h.4.self_attention.dense.weight o 4 - 48x48
h.4.self_attention.dense.weight o 4 - 48x48
transformer.h.4.mlp.dense_h_to_4h.weight up 4 - 48x48
""",
    ),
    "mpt and dbrx": (
        {"model_type": "mpt", "d_model": 48, "n_heads": 6},
        """
transformer.blocks.1.attn.Wqkv.weight qkv 1 q,k,v 144x48
transformer.blocks.1.attn.out_proj.weight o 1 - 48x48
transformer.blocks.1.ffn.up_proj.weight up 1 - 48x48
transformer.blocks.1.ffn.down_proj.weight down 1 - 48x48
transformer.blocks.1.norm_attn_norm.attn.Wqkv.weight qkv 1 q,k,v 144x48
transformer.blocks.1.ffn.router.layer.weight router 1 - 48x48
transformer.blocks.1.ffn.experts.mlp.w1 gate 1 - 96x48
transformer.blocks.1.ffn.experts.mlp.v1 up 1 - 96x48
transformer.blocks.1.ffn.experts.mlp.w2 down 1 - 96x48
""",
    ),
    "opt": (
        {"model_type": "opt"},
        """
model.decoder.embed_tokens.weight embed - - 48x48
model.decoder.embed_positions.weight pos_embed - - 48x48
model.decoder.layers.9.self_attn.out_proj.weight o 9 - 48x48
model.decoder.layers.9.fc1.weight up 9 - 48x48
model.decoder.layers.9.fc2.weight down 9 - 48x48
model.decoder.project_in.weight other - - 48x48
""",
    ),
    "chatglm": (
        {
            "model_type": "chatglm",
            **HEADS,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "kv_channels": 8,
        },
        """
transformer.encoder.layers.3.self_attention.query_key_value.weight qkv 3 q,k,v 80x48
transformer.encoder.layers.3.self_attention.dense.weight o 3 - 48x48
transformer.embedding.word_embeddings.weight embed - - 48x48
transformer.output_layer.weight lm_head - - 48x48
""",
    ),
    "internlm2": (
        {"model_type": "internlm2", **HEADS, "num_key_value_heads": 2},
        """
model.layers.3.attention.wqkv.weight qkv 3 q,k,v 80x48
model.layers.3.attention.wo.weight o 3 - 48x48
model.layers.3.feed_forward.w1.weight gate 3 - 48x48
model.layers.3.feed_forward.w3.weight up 3 - 48x48
model.layers.3.feed_forward.w2.weight down 3 - 48x48
model.tok_embeddings.weight embed - - 48x48
output.weight lm_head - - 48x48
""",
    ),
    "baichuan": (
        {"model_type": "baichuan", **HEADS},
        """
model.layers.3.self_attn.W_pack.weight qkv 3 q,k,v 144x48
""",
    ),
    "phi3": (
        {"model_type": "phi3", **HEADS, "num_key_value_heads": 2},
        """
model.layers.3.self_attn.qkv_proj.weight qkv 3 q,k,v 80x48
model.layers.3.mlp.gate_up_proj.weight gate_up 3 gate,up 64x48
""",
    ),
    "qwen-1": (
        {"model_type": "qwen", **HEADS},
        """
transformer.h.3.attn.c_attn.weight qkv 3 q,k,v 144x48
transformer.h.3.mlp.w1.weight up 3 - 48x48
transformer.h.3.mlp.w2.weight gate 3 - 48x48
""",
    ),
    "bert, distilbert, albert, deberta, electra": (
        {"model_type": "bert"},
        """
bert.encoder.layer.3.attention.output.dense.weight o 3 - 48x48
roberta.encoder.layer.3.intermediate.dense.weight up 3 - 48x48
lm_head.dense.weight other - - 48x48
lm_head.decoder.weight lm_head - - 48x48
distilbert.transformer.layer.3.ffn.lin1.weight up 3 - 48x48
vocab_transform.weight other - - 48x48
vocab_projector.weight lm_head - - 48x48
albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight q 0 - 48x48
albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense.weight o 0 - 48x48
albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight up 0 - 48x48
albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight down 0 - 48x48
albert.encoder.embedding_hidden_mapping_in.weight other - - 48x48
albert.pooler.weight other - - 48x48
electra.embeddings_project.weight other - - 48x48
generator_lm_head.weight lm_head - - 48x48
discriminator_predictions.dense_prediction.weight classifier - - 48x48
""",
    ),
    "t5 and bart": (
        {"model_type": "t5"},
        """
shared.weight embed - - 48x48
encoder.block.3.layer.0.SelfAttention.q.weight q 3 - 48x48
decoder.block.3.layer.1.EncDecAttention.v.weight v 3 - 48x48
decoder.block.3.layer.2.DenseReluDense.wo.weight down 3 - 48x48
decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight pos_embed 0 - 48x48
model.encoder.layers.3.self_attn.out_proj.weight o 3 - 48x48
model.decoder.layers.3.encoder_attn.k_proj.weight k 3 - 48x48
model.shared.weight embed - - 48x48
classification_head.dense.weight classifier - - 48x48
classification_head.out_proj.weight classifier - - 48x48
""",
    ),
    "whisper": (
        {"model_type": "whisper"},
        """
model.encoder.conv1.weight conv - - 48x48x3
model.decoder.layers.2.encoder_attn.out_proj.weight o 2 - 48x48
proj_out.weight other - - 48x48
model.encoder.embed_positions.weight pos_embed - - 48x48
""",
    ),
    "vit, clip, siglip (transformers)": (
        {"model_type": "clip"},
        """
vit.embeddings.patch_embeddings.projection.weight conv - - 48x16x3x3
vit.embeddings.position_embeddings pos_embed - - 1x17x48
vit.encoder.layer.3.attention.attention.query.weight q 3 - 48x48
vit.layernorm.weight other - - 48
text_model.encoder.layers.3.self_attn.q_proj.weight q 3 - 48x48
vision_model.encoder.layers.3.mlp.fc2.weight down 3 - 48x48
vision_model.embeddings.position_embedding.weight pos_embed - - 48x48
text_projection.weight other - - 48x48
visual_projection.weight other - - 48x48
text_projection other - - 48x48
multi_modal_projector.linear_1.weight other - - 48x48
vision_model.head.attention.in_proj_weight qkv - q,k,v 144x48
vision_model.head.mlp.fc1.weight up - - 48x48
""",
    ),
    "timm vit": (
        {"architecture": "vit_small_patch16_224"},
        """
pos_embed pos_embed - - 1x17x48
patch_embed.proj.weight conv - - 48x16x3x3
cls_token other - - 1x1x48
blocks.3.attn.qkv.weight qkv 3 q,k,v 144x48
blocks.3.attn.proj.weight o 3 - 48x48
blocks.3.mlp.fc1.weight up 3 - 48x48
blocks.3.mlp.w12.weight gate_up 3 - 64x48
blocks.3.mlp.fc1_g.weight gate 3 - 48x48
blocks.3.mlp.fc1_x.weight up 3 - 48x48
head.weight classifier - - 48x48
""",
    ),
    "open_clip": (
        {},
        """
transformer.resblocks.3.attn.in_proj_weight qkv 3 q,k,v 144x48
visual.transformer.resblocks.3.attn.out_proj.weight o 3 - 48x48
visual.transformer.resblocks.3.mlp.c_fc.weight up 3 - 48x48
visual.transformer.resblocks.3.mlp.c_proj.weight down 3 - 48x48
token_embedding.weight embed - - 48x48
positional_embedding pos_embed - - 48x48
visual.positional_embedding pos_embed - - 48x48
""",
    ),
    "qwen2-vl": (
        {"model_type": "qwen2_vl"},
        """
visual.blocks.3.attn.qkv.weight qkv 3 q,k,v 144x48
visual.blocks.3.attn.proj.weight o 3 - 48x48
""",
    ),
    "swin": (
        {"model_type": "swin"},
        """
swin.encoder.layers.1.blocks.0.attention.self.query.weight q 2 - 48x48
swin.encoder.layers.0.blocks.1.attention.output.dense.weight o 1 - 48x48
swin.encoder.layers.0.blocks.0.attention.output.dense.weight o 0 - 48x48
swin.encoder.layers.0.downsample.reduction.weight other - - 48x48
""",
    ),
    "convnext": (
        {"model_type": "convnext"},
        """
convnext.encoder.stages.0.layers.0.dwconv.weight conv 0 - 48x16x3x3
convnext.encoder.stages.0.layers.0.pwconv1.weight up 0 - 48x48
convnext.encoder.stages.0.layers.0.pwconv2.weight down 0 - 48x48
convnext.encoder.stages.1.layers.0.pwconv2.weight down 1 - 48x48
""",
    ),
    "resnet (transformers)": (
        {"model_type": "resnet"},
        """
resnet.encoder.stages.0.layers.0.layer.0.convolution.weight conv 0 - 48x16x3x3
resnet.encoder.stages.0.layers.1.layer.2.convolution.weight conv 1 - 48x16x3x3
""",
    ),
    "resnet (torchvision)": (
        {},
        """
layer1.0.conv1.weight conv 0 - 48x16x3x3
layer2.0.conv1.weight conv 1 - 48x16x3x3
fc.weight classifier - - 48x48
classifier.1.weight classifier 1 - 48x48
""",
    ),
    "mixtral, qwen-moe, llama4, granite-moe": (
        {"model_type": "qwen3_moe", "hidden_size": 48},
        """
model.layers.2.block_sparse_moe.gate.weight router 2 - 48x48
model.layers.2.block_sparse_moe.experts.7.w1.weight gate 2 - 48x48
model.layers.2.mlp.gate.weight router 2 - 48x48
model.layers.2.mlp.experts.5.gate_proj.weight gate 2 - 48x48
model.layers.2.mlp.shared_expert.gate_proj.weight gate 2 - 48x48
model.layers.2.mlp.shared_expert_gate.weight router 2 - 48x48
model.layers.2.mlp.shared_experts.down_proj.weight down 2 - 48x48
model.layers.2.mlp.experts.gate_up_proj gate_up 2 gate,up 2x64x48
model.layers.2.feed_forward.router.weight router 2 - 48x48
model.layers.2.feed_forward.experts.gate_up_proj gate_up 2 gate,up 2x64x48
model.layers.2.feed_forward.shared_expert.up_proj.weight up 2 - 48x48
""",
    ),
    "deepseek": (
        {"model_type": "deepseek_v3"},
        """
model.layers.2.self_attn.q_a_proj.weight q 2 - 48x48
model.layers.2.self_attn.q_b_proj.weight q 2 - 48x48
model.layers.2.self_attn.kv_a_proj_with_mqa.weight qkv 2 - 144x48
model.layers.2.self_attn.kv_b_proj.weight qkv 2 - 144x48
model.layers.61.eh_proj.weight other 61 - 48x48
model.layers.61.shared_head.head.weight lm_head 61 - 48x48
""",
    ),
    "mamba, rwkv, gated deltanet": (
        {"model_type": "mamba"},
        """
backbone.layers.3.mixer.in_proj.weight other 3 - 48x48
backbone.layers.3.mixer.out_proj.weight other 3 - 48x48
backbone.layers.3.mixer.x_proj.weight other 3 - 48x48
backbone.layers.3.mixer.dt_proj.weight other 3 - 48x48
backbone.layers.3.mixer.conv1d.weight conv 3 - 48x48x3
backbone.layers.3.mixer.A_log other 3 - 48x48
backbone.embeddings.weight embed - - 48x48
model.layers.3.mamba.in_proj.weight other 3 - 48x48
model.layers.3.mamba.out_proj.weight other 3 - 48x48
model.layers.3.linear_attn.in_proj_qkvz.weight other 3 - 48x48
model.layers.3.linear_attn.in_proj_ba.weight other 3 - 48x48
model.layers.3.linear_attn.out_proj.weight o 3 - 48x48
rwkv.blocks.3.attention.key.weight k 3 - 48x48
rwkv.blocks.3.attention.receptance.weight other 3 - 48x48
rwkv.blocks.3.feed_forward.key.weight up 3 - 48x48
rwkv.blocks.3.feed_forward.value.weight down 3 - 48x48
""",
    ),
    "diffusers unet, dit, vae": (
        {"_class_name": "UNet2DConditionModel"},
        """
conv_in.weight conv - - 48x16x3x3
conv_out.weight conv - - 48x16x3x3
time_embedding.linear_1.weight other - - 48x48
down_blocks.1.resnets.0.conv1.weight conv 1 - 48x16x3x3
down_blocks.1.resnets.0.time_emb_proj.weight other 1 - 48x48
down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight q 1 - 48x48
down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.weight o 1 - 48x48
down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj.weight up 1 - 48x48
down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.weight down 1 - 48x48
mid_block.attentions.0.proj_in.weight other 0 - 48x48
transformer_blocks.3.attn.to_k.weight k 3 - 48x48
transformer_blocks.3.attn.add_q_proj.weight q 3 - 48x48
transformer_blocks.3.attn.add_k_proj.weight k 3 - 48x48
transformer_blocks.3.attn.to_add_out.weight o 3 - 48x48
transformer_blocks.3.ff_context.net.0.proj.weight up 3 - 48x48
transformer_blocks.3.norm1.linear.weight other 3 - 48x48
single_transformer_blocks.3.attn.to_q.weight q 3 - 48x48
single_transformer_blocks.3.proj_mlp.weight up 3 - 48x48
single_transformer_blocks.3.proj_out.weight other 3 - 48x48
context_embedder.weight other - - 48x48
x_embedder.weight other - - 48x48
pos_embed.proj.weight conv - - 48x16x3x3
proj_out.weight other - - 48x48
adaln_single.linear.weight other - - 48x48
transformer_blocks.3.adaLN_modulation.1.weight other 3 - 48x48
encoder.mid_block.attentions.0.to_q.weight q 0 - 48x48
decoder.up_blocks.3.resnets.0.conv1.weight conv 3 - 48x16x3x3
""",
    ),
    "wav2vec2": (
        {"model_type": "wav2vec2"},
        """
wav2vec2.feature_extractor.conv_layers.0.conv.weight conv 0 - 48x48x3
wav2vec2.encoder.layers.3.attention.k_proj.weight k 3 - 48x48
wav2vec2.encoder.layers.3.attention.out_proj.weight o 3 - 48x48
wav2vec2.encoder.layers.3.feed_forward.intermediate_dense.weight up 3 - 48x48
wav2vec2.encoder.layers.3.feed_forward.output_dense.weight down 3 - 48x48
wav2vec2.encoder.pos_conv_embed.conv.weight_v conv - - 48x48x3
wav2vec2.feature_projection.projection.weight other - - 48x48
""",
    ),
    "torch": (
        {},
        """
transformer.layers.0.self_attn.in_proj_weight qkv 0 q,k,v 144x48
encoder.layers.3.linear1.weight up 3 - 48x48
encoder.layers.3.linear2.weight down 3 - 48x48
encoder.layers.3.multihead_attn.out_proj.weight o 3 - 48x48
""",
    ),
    "deberta": (
        {"model_type": "deberta", **HEADS},
        """
deberta.encoder.layer.2.attention.self.query_proj.weight q 2 - 48x48
deberta.encoder.layer.2.attention.self.in_proj.weight qkv 2 q,k,v 144x48
deberta.encoder.layer.2.attention.self.pos_proj.weight other 2 - 48x48
deberta.encoder.rel_embeddings.weight pos_embed - - 48x48
""",
    ),
    "granite-moe": (
        {"model_type": "granitemoe", "hidden_size": 80},
        """
model.layers.2.block_sparse_moe.input_linear.weight gate_up 2 gate,up 2x64x80
model.layers.2.block_sparse_moe.output_linear.weight down 2 - 2x80x96
model.layers.2.block_sparse_moe.router.layer.weight router 2 - 48x48
model.layers.2.shared_mlp.input_linear.weight gate_up 2 gate,up 64x80
model.layers.2.shared_mlp.output_linear.weight down 2 - 48x48
""",
    ),
    "torch lstm, gru, rnn": (
        {},
        """
lstm.weight_ih_l0 recurrent - i,f,g,o 40x12
lstm.weight_hh_l0 recurrent - i,f,g,o 40x10
gru.weight_ih_l1_reverse recurrent - r,z,n 30x12
gru.weight_hh_l1_reverse recurrent - r,z,n 30x10
cell.weight_ih recurrent - - 10x12
cell.weight_hh recurrent - - 10x10
""",
    ),
    "modernbert": (
        {"model_type": "modernbert", **HEADS},
        """
model.layers.4.attn.Wqkv.weight qkv 4 q,k,v 144x48
model.layers.4.attn.Wo.weight o 4 - 48x48
model.layers.4.mlp.Wi.weight gate_up 4 - 64x48
model.layers.4.mlp.Wo.weight down 4 - 48x48
embeddings.tok_embeddings.weight embed - - 48x48
""",
    ),
}


def planned(table, settings):
    lines = (line.split() for line in table)
    tensors = laid({name: ("F32", *map(int, sizes.split("x"))) for name, *_, sizes in lines})
    return plan_matrices(tensors, MatrixRules(), settings=settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of(family):
    settings, text = FAMILIES[family]
    table = text.strip().splitlines()
    rows = planned(table, settings)
    for line in table:
        name, role, block, parts, _ = line.split()
        own = [row for row in rows if row.tensor.name == name]
        found = list(dict.fromkeys(row.part for row in own))
        assert found == ([None] if parts == "-" else parts.split(",")), name
        assert {row.layer_index for row in own} == {None if block == "-" else int(block)}, name
        expected = set(found) if set(found) <= set("qkv") | {"gate", "up"} else {role}
        assert {row.role for row in own} == expected, name
