"""Optimization and objectives, as other codebases call them."""

from __future__ import annotations

from stillreel.configs.synonyms.synonym import Synonym

_NO_TRAINING = "this command trains nothing; pretrain and finetune do"
_NO_TEXT = "no text is generated here: a model compares captions with clips"
_LR = {"optimizer.lr": "CLIP's towers", "optimizer.lr_new": "new modules"}
_SCHEDULE = {
    "optimizer.warmup_steps": "linear warm-up, in steps",
    "optimizer.warmup_ratio": "the same, as a share of all steps",
    "optimizer.min_lr_ratio": "where the cosine after it ends; there is no other schedule",
}
_WARMUP = {"optimizer.warmup_steps": "in steps", "optimizer.warmup_ratio": "as a share of all steps"}
_BATCH = {"batch": ""}
_STEPS = {"steps": "", "epochs": ""}
_TEMPERATURE = {
    "model.temperature": "a fixed one",
    "objective.logit_scale": "learned or fixed, CLIP's 1 / temperature",
    "peer.temperature": "of a STAN checkpoint",
}
_LOGIT_SCALE = {
    "objective.logit_scale": "learned, or fixed where it starts",
    "model.temperature": "a fixed 1 / logit_scale",
    "peer.temperature": "of a STAN checkpoint, 1 / logit_scale",
}
_FREEZE = {"optimizer.lr=0": "freezes both of CLIP's towers", "optimizer.layer_decay": "lower blocks learn more slowly"}
_DROPOUT = {"objective.patch_dropout": "", "model.stan.drop_path": "", "model.tight.dropout": ""}
_LOSS = {
    "objective.infonce": "",
    "objective.sigmoid": "",
    "objective.classes": "",
    "objective.matching": "",
    "objective.distill": "",
}

TERMS: tuple[tuple[str, Synonym], ...] = (
    (
        "learning_rate lr base_lr max_lr peak_lr init_lr initial_lr lr_max lr_peak adam_lr lrate blr rate "
        "optimizer_lr matrix_lr lr_init",
        Synonym(_LR, _NO_TRAINING),
    ),
    (
        "coef_lr lr_coef lr_mult lr_multiplier clip_lr backbone_lr vision_lr visual_lr image_lr text_lr tower_lr "
        "encoder_lr head_lr new_lr lr_new embedding_lr unembedding_lr scalar_lr backbone_lr_mult lr_backbone "
        "optimizer_lr_backbone",
        Synonym(
            {"optimizer.lr": "CLIP's towers: CLIP4Clip's lr * coef_lr", "optimizer.lr_new": "new modules"}, _NO_TRAINING
        ),
    ),
    (
        "decay_fraction init_lr_frac lr_scheduler scheduler lr_schedule schedule lr_scheduler_type lr_decay "
        "lr_decay_style lr_decay_type lr_policy cosine decay_type skip_scheduler cooldown epochs_cooldown "
        "lr_cooldown_power warmdown_ratio decay_ratio lr_gamma lr_step step_size cycle_length cosine_decay "
        "scheduler_type scheduler.name num_decay_steps",
        Synonym(_SCHEDULE, _NO_TRAINING),
    ),
    (
        "min_lr lr_min min_lr_ratio lr_min_ratio final_lr_frac final_lr lr_final lr_end end_lr min_lr_factor eta_min "
        "decay_lr lr_cooldown_end optimizer.final",
        Synonym({"optimizer.min_lr_ratio": ""}, _NO_TRAINING),
    ),
    (
        "warmup warmup_steps num_warmup_steps warmup_iters warmup_length lr_warmup_steps lr_warmup warmup_iterations "
        "warmup_updates linear_warmup lr_warmup_iters warmup_schedule lr_warmup_length",
        Synonym(_WARMUP, _NO_TRAINING),
    ),
    (
        "warmup_proportion warmup_ratio warmup_fraction warmup_frac warmup_pct pct_start warmup_epochs lr_warmup_ratio",
        Synonym({"optimizer.warmup_ratio": "warm-up as a share of all steps"}, _NO_TRAINING),
    ),
    (
        "layer_decay llrd layerwise_lr_decay layerwise_decay image_layer_decay visual_layer_decay text_layer_decay "
        "lr_layer_decay layer_lr_decay",
        Synonym({"optimizer.layer_decay": ""}, _NO_TRAINING),
    ),
    (
        "wd weight_decay adam_wd adam_weight_decay l2 l2_reg wd_exclude no_weight_decay",
        Synonym({"optimizer.weight_decay": ""}, _NO_TRAINING),
    ),
    ("decay", Synonym({"optimizer.weight_decay": "", "ema.decay": ""}, _NO_TRAINING)),
    (
        "betas beta1 beta2 adam_beta1 adam_beta2 adam_betas b1 b2 momentum",
        Synonym({"optimizer.betas": ""}, _NO_TRAINING),
    ),
    (
        "eps epsilon adam_eps adam_epsilon optimizer_eps",
        Synonym({"optimizer.eps": "AdamW's", "model.eps": "layer norms'"}, _NO_TRAINING),
    ),
    ("layer_norm_eps ln_eps norm_eps", Synonym({"model.eps": ""})),
    (
        "opt optim optimizer optimiser optimizer_name optim_name optimizer_type optim_type opt_type opt_name "
        "optimizer.name optimizer.type adamw use_adamw sgd muon lion opt_kwargs optimizer.implementation fused_adam",
        Synonym({"optimizer.lr": "of AdamW; there is no other optimizer", "optimizer.weight_decay": ""}, _NO_TRAINING),
    ),
    (
        "grad_clip clip_grad max_grad_norm grad_clip_norm gradient_clip gradient_clip_val gradient_clip_norm "
        "clip_norm grad_norm clip_grad_norm max_norm gradient_clipping grad_clipping optim.clip clip_gradients "
        "clip_value grad_norm_clip",
        Synonym({"optimizer.grad_clip_norm": ""}, _NO_TRAINING),
    ),
    (
        "batch_size train_batch_size global_batch_size total_batch_size batch bs train_batch mini_batch "
        "per_device_train_batch_size local_batch_size device_batch_size per_gpu_batch_size batch_size_per_gpu n_batch "
        "gbs per_device_batch_size per_gpu_train_batch_size samples_per_gpu effective_batch_size mini_batch_size "
        "batch_size_train",
        Synonym(_BATCH),
    ),
    (
        "eval_batch_size val_batch_size batch_size_val batch_size_eval test_batch_size per_device_eval_batch_size "
        "eval.batch_size",
        Synonym({"batch": "an evaluation has no batch size of its own"}),
    ),
    (
        "micro_batch micro_batch_size gradient_accumulation_steps gradient_accumulation grad_accum grad_accum_steps "
        "accum_freq accum_steps accum_iter accumulate_grad_batches grad_acc_steps acc_steps update_freq "
        "accumulation_steps grad_cache chunk_size mbs pipeline_parallel_microbatch_size cached_batch",
        Synonym(
            {
                "micro_batch": "clips of a rank in memory at once; batch stays the whole one, as with gradient accumulation"
            },
            _NO_TRAINING,
        ),
    ),
    (
        "epoch epochs num_epochs n_epochs max_epochs num_train_epochs train_epochs total_epochs max_epoch",
        Synonym({"epochs": "", "steps": ""}, _NO_TRAINING),
    ),
    (
        "steps max_steps total_steps num_steps num_iterations max_iters max_iterations iterations iters train_steps "
        "n_steps num_train_steps num_training_steps train_iters total_iters max_train_steps max_updates num_updates "
        "total_training_steps n_iters",
        Synonym(_STEPS, _NO_TRAINING),
    ),
    (
        "train_num_samples num_samples max_samples max_train_samples samples_seen total_samples dataset_size "
        "limit_train_batches n_samples",
        Synonym({"epochs": "", "steps": "", "stills": "", "samples": ""}),
    ),
    ("val_num_samples max_eval_samples limit_val_batches eval_samples eval_tokens", Synonym({"eval.clips": ""})),
    (
        "ema ema_decay use_ema model_ema ema_rate ema_momentum ema.enable ema.use model_ema_decay polyak ema_beta "
        "ema_power with_ema exponential_moving_average",
        Synonym({"ema.decay": ""}, _NO_TRAINING),
    ),
    (
        "wise_ft wise_ft.alpha alpha weight_interpolation interpolation_alpha model_soup weight_averaging wise",
        Synonym({"wise_ft_alpha": ""}, "it is wise_ft_alpha of pretrain and finetune"),
    ),
    # Objectives.
    (
        "temperature temp tau init_temperature softmax_temp contrastive_temperature loss_temperature fix_temperature "
        "temp_init learnable_temperature learn_temperature inverse_temperature temperature_init logit_temperature "
        "similarity_scale",
        Synonym(_TEMPERATURE, "only models have a temperature, and keep it: pretrain, finetune and evaluate set it"),
    ),
    (
        "logit_scale init_logit_scale logit_scale_init learn_logit_scale fix_logit_scale",
        Synonym(_LOGIT_SCALE, "only models have a temperature, and keep it: pretrain, finetune and evaluate set it"),
    ),
    (
        "max_logit_scale logit_scale_max logit_scale_clamp clamp_logit_scale min_temperature max_scale max_temperature",
        Synonym({"objective.max_logit_scale": ""}),
    ),
    (
        "siglip use_siglip sigmoid sigmoid_loss siglip_loss",
        Synonym({"objective.sigmoid": "weight of SigLIP's loss; objective.infonce=0 leaves it alone"}),
    ),
    ("logit_bias init_logit_bias bias_init sigmoid_bias", Synonym({"objective.sigmoid_bias": ""})),
    (
        "infonce itc itc_loss nce contrastive contrastive_loss clip_loss nt_xent itc_weight contrastive_weight "
        "coca_contrastive_loss_weight vtc vtc_loss",
        Synonym({"objective.infonce": "", "objective.sigmoid": ""}, _NO_TRAINING),
    ),
    (
        "loss loss_type loss_fn loss_weight loss_weights criterion objective objectives loss_name",
        Synonym(_LOSS, _NO_TRAINING),
    ),
    ("itm itm_loss itm_weight matching matching_loss vtm vtm_loss", Synonym({"objective.matching": ""}, _NO_TRAINING)),
    (
        "hard_negative hard_negatives hard_negative_rate num_hard_negatives n_hard_negatives negative_weighting "
        "num_negatives negatives hard_negative_mining",
        Synonym({"objective.matching": "", "objective.candidates": ""}, _NO_TRAINING),
    ),
    (
        "distill distil kd kd_weight distillation distill_weight distillation_weight kd_loss kd_alpha",
        Synonym({"objective.distill": ""}, _NO_TRAINING),
    ),
    (
        "distill_model distill_pretrained teacher teacher_model teacher_path",
        Synonym({"objective.distill": "its teacher is the model's own re-ranker"}, _NO_TRAINING),
    ),
    ("cross_entropy ce ce_loss classification_loss cls_loss", Synonym({"objective.classes": ""})),
    (
        "label_smoothing smoothing label_smooth",
        Synonym({}, "there is no label smoothing: targets are one for a pair and zero for others"),
    ),
    (
        "margin hinge triplet triplet_loss use_mil mil_nce sampled_use_mil",
        Synonym({}, "losses are InfoNCE (objective.infonce) and SigLIP's (objective.sigmoid), which have no margin"),
    ),
    ("mlm mlm_loss lm_loss caption_loss captioning coca_caption_loss_weight decoder", Synonym({}, _NO_TEXT)),
    ("beam beam_size num_beams max_new_tokens top_p do_sample max_gen_len generate", Synonym({}, _NO_TEXT)),
    (
        "gather_with_grad local_loss gather all_gather loss_dist_impl queue_size memory_bank moco",
        Synonym({}, "the loss is always over the batch of all ranks, with its whole gradient"),
    ),
    (
        "patch_dropout force_patch_dropout token_dropout mask_ratio masking_ratio flip_mask_ratio token_drop "
        "patch_drop",
        Synonym({"objective.patch_dropout": ""}, _NO_TRAINING),
    ),
    (
        "dropout drop dropout_rate dropout_prob drop_rate attn_dropout attention_dropout hidden_dropout "
        "attn_drop_rate resid_pdrop",
        Synonym(_DROPOUT, _NO_TRAINING),
    ),
    (
        "drop_path drop_path_rate stochastic_depth stochastic_depth_rate path_dropout",
        Synonym({"model.stan.drop_path": ""}),
    ),
    (
        "freeze frozen lock lock_image lock_text lock_backbone freeze_layer_num freeze_layers freeze_backbone "
        "freeze_clip freeze_vision freeze_visual freeze_text freeze_image freeze_encoder freeze_towers unfreeze "
        "lock_image_unlocked_groups lock_text_unlocked_layers freeze_vision_encoder train_expert_only "
        "freeze_text_encoder freeze_image_encoder",
        Synonym(_FREEZE, _NO_TRAINING),
    ),
    (
        "lora peft adapter adapters lora_rank lora_r use_lora",
        Synonym({}, "there are no adapters; optimizer.lr=0 freezes CLIP's towers and trains what is new"),
    ),
)
