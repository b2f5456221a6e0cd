"""The machine, checkpoints and logs, as other codebases call them."""

from __future__ import annotations

from stillreel.configs.synonyms.synonym import Synonym

_NO_TRAINING = "this command trains nothing; pretrain and finetune do"
_TORCHRUN = (
    "it is no setting: torchrun --nproc-per-node GPUS [--nnodes MACHINES] -m stillreel COMMAND ... starts a process for each "
    "GPU, of pretrain, finetune and evaluate"
)
_MACHINES = {"ranks": "", "nodes": "", "ray": ""}
_EVAL_EVERY = {"eval.every": ""}
_EXPERIMENT = {"out": "", "OUT": "", "page": ""}
_TRACKER = {"tracker": "", "tensorboard": ""}

TERMS: tuple[tuple[str, Synonym], ...] = (
    (
        "workers num_workers n_workers num_thread_reader dataloader_num_workers num_data_workers loader_workers "
        "n_jobs num_proc num_jobs jobs data_workers dataloader_workers num_cpus cpus processes_count processes "
        "num_dataloader_workers",
        Synonym({"workers": "", "processes": ""}),
    ),
    ("thread_count num_threads n_threads omp_num_threads", Synonym({"threads": "", "workers": ""})),
    (
        "prefetch prefetch_factor prefetch_size persistent_workers pin_memory load_async prefetch_batches",
        Synonym({"workers": "how far they load ahead is no setting"}),
    ),
    (
        "precision amp bf16 fp16 fp32 half dtype mixed_precision autocast amp_bf16 bfloat16 float16 float32 "
        "torch_dtype tf32 model_dtype param_dtype use_amp use_bf16 use_fp16 compute_dtype amp_dtype "
        "mixed_precision_param fp8 float8 mp_policy train_dtype fp16_opt_level mixed_precision_reduce float8_recipe "
        "matmul_allow_tf32",
        Synonym({"precision": "auto, bf16 or fp32", "dtype": ""}),
    ),
    (
        "compile.backend compile.mode compile.components torchcompile_fullgraph compile torchcompile use_compile "
        "compile_model compile.enable compile_mode torchcompile_mode inductor torchcompile_backend "
        "torchcompile_strategy do_compile enable_compile jit torchscript",
        Synonym({"compile": "auto, on or off"}, _NO_TRAINING),
    ),
    (
        "grad_checkpointing gradient_checkpointing activation_checkpoint activation_checkpointing "
        "activation_checkpoint.mode selective_activation_checkpointing grad_checkpoint gradient_checkpoint recompute "
        "remat use_checkpoint checkpointing ac ac_mode checkpoint_activations activation_recompute "
        "use_gradient_checkpointing",
        Synonym({"activation_checkpointing": ""}, _NO_TRAINING),
    ),
    (
        "fsdp fsdp2 use_fsdp fsdp_type zero zero_stage deepspeed full_shard sharding shard sharded dp_shard "
        "shard_strategy sharding_strategy data_parallel_shard_degree fsdp_config fully_shard hsdp "
        "fsdp_sharding_strategy fsdp_checkpoint fsdp_reshard_after_forward fsdp_no_reshard_after_forward zero3",
        Synonym({"parallel=fsdp": "weights, gradients and AdamW's state are sharded"}, _NO_TRAINING),
    ),
    (
        "ddp strategy distributed distributed_strategy data_parallel parallelism dp_replicate "
        "data_parallel_replicate_degree use_ddp parallel dist distributed_type ddp_static_graph "
        "find_unused_parameters",
        Synonym({"parallel": "ddp or fsdp, once torchrun starts more than one process"}, _TORCHRUN),
    ),
    (
        "ddp_backend dist_backend distributed_backend backend dist_url init_method nccl gloo distributed.backend "
        "spawn_method",
        Synonym({}, _TORCHRUN),
    ),
    (
        "gpus num_gpus n_gpus n_gpu devices num_devices nproc_per_node nproc num_processes world_size local_rank rank "
        "num_nodes nnodes nodes node_rank master_addr master_port launcher slurm num_machines ntasks gpu_count "
        "machine_rank",
        Synonym(_MACHINES, _TORCHRUN),
    ),
    (
        "tensor_parallel tensor_parallel_degree tp tp_size pipeline_parallel pipeline_parallel_degree pp "
        "context_parallel context_parallel_degree sequence_parallel expert_parallel_degree",
        Synonym({}, "layers and sequences are not split over GPUs; parallel=fsdp shards weights and AdamW's state"),
    ),
    (
        "cpu_offload enable_cpu_offload fsdp_offload_cpu offload",
        Synonym(
            {},
            "nothing is moved to the CPU; activation_checkpointing, micro_batch and parallel=fsdp save a GPU's memory",
        ),
    ),
    (
        "device device_type accelerator cuda use_cuda no_cuda use_gpu gpu gpu_id device_id cuda_device use_cpu mps",
        Synonym({"device": "auto, cpu or cuda; CUDA_VISIBLE_DEVICES chooses which"}, "this command needs no GPU"),
    ),
    (
        "flash_attn flash_attention use_flash_attn attn_implementation use_flash_attention sdpa xformers use_sdpa "
        "attn_impl",
        Synonym({}, "attention is torch's scaled_dot_product_attention, which chooses its kernel"),
    ),
    (
        "output_dir out_dir save_dir output save_path dump_dir dump_folder log_dir logs run_dir work_dir exp_dir "
        "experiment_dir results_dir results_path output_path output_folder checkpoint_dir checkpoint.folder "
        "checkpoint.path ckpt_dir default_root_dir job_dir project_dir out_path save_folder snapshot_dir",
        Synonym(_EXPERIMENT),
    ),
    (
        "model_tag name run_name exp_name experiment experiment_name job_name run_id exp experiment_id "
        "job.description project_name run tag wandb_run_name",
        Synonym(_EXPERIMENT | {"out": "a run goes by its folder"}),
    ),
    (
        "save_every save_freq save_steps save_interval save_frequency save_period checkpoint_interval "
        "checkpoint_every checkpoint_freq checkpoint.interval checkpoint.freq checkpoint.every checkpoint.dump.every "
        "ckpt_interval ckpt_every ckpt_freq save_epochs save_every_n_steps checkpoint_steps checkpointing_steps "
        "save_strategy save_step every_n_train_steps save_checkpoint_every save_checkpoint save_every_epoch "
        "save_ckpt_freq checkpoint_frequency",
        Synonym({"save_every": ""}, "this command saves no checkpoints; pretrain and finetune do"),
    ),
    (
        "save_total_limit keep_last keep_latest_k keep_last_k keep_last_n max_checkpoints max_to_keep "
        "keep_checkpoint_max num_checkpoints delete_previous_checkpoint save_most_recent checkpoint.keep "
        "checkpoint.dump.keep checkpoint.eval.keep save_last keep_checkpoints checkpoints_total_limit max_keep_ckpts",
        Synonym({"keep_last": "", "keep_every": ""}),
    ),
    (
        "metric_for_best_model monitor best_metric save_best load_best_model_at_end save_top_k checkpoint_metric best "
        "best_ckpt early_stopping early_stop patience selection_metric",
        Synonym({"best_metric": "", "select": "auto: the best on the validation split; last"}, _NO_TRAINING),
    ),
    (
        "log_every logging_steps log_interval log_freq log_frequency n_display print_freq print_every print_interval "
        "log_steps display_step log_every_n_steps log_metric_every_n_steps logging.freq logging.interval "
        "metrics.log_freq report_interval logging_interval log_period display_freq log_step logging_freq "
        "summary_interval",
        Synonym({"log_every": ""}),
    ),
    (
        "report_to wandb use_wandb wandb_project wandb_name wandb_entity wandb_project_name wandb_notes wandb_mode "
        "wandb.enable wandb.project enable_wandb logger loggers tracker trackers log_to log_with mlflow comet trackio "
        "neptune",
        Synonym(_TRACKER, "metrics of a run are told where it is trained, by pretrain and finetune"),
    ),
    (
        "tensorboard use_tensorboard enable_tensorboard tensorboard_dir tb tb_dir save_tb_folder tensorboard_log_dir "
        "log_tensorboard",
        Synonym(_TRACKER, "metrics of a run are told where it is trained, by pretrain and finetune"),
    ),
    (
        "log_level verbose verbosity quiet disable_tqdm no_progress progress_bar enable_progress_bar show_progress "
        "tqdm",
        Synonym({"progress": "auto, bar, lines or off"}),
    ),
    (
        "eval_freq val_frequency eval_every eval_interval eval_steps val_freq val_every val_interval test_freq "
        "eval_step eval_epochs evaluate_every validate_every validation_steps validation.freq validation_interval "
        "val_check_interval evaluation_strategy eval_strategy eval_period zeroshot_frequency check_val_every_n_epoch "
        "checkpoint.eval.every eval_frequency val_steps eval.freq env_eval_freq eval.interval val_epoch do_eval_every "
        "validation_freq evaluation_interval",
        Synonym(_EVAL_EVERY, "a checkpoint is evaluated by this command once; eval.every is of pretrain and finetune"),
    ),
    (
        "do_eval do_train do_pretrain do_test eval_only test_only evaluate_only validate evaluate train_only "
        "inference_only do_predict",
        Synonym({}, "it is a command of its own: stillreel pretrain, finetune or evaluate"),
    ),
    (
        "random_seed seed rng_seed manual_seed data_seed train_seed random_state global_seed",
        Synonym({"seed": ""}, "this command has no seed"),
    ),
    (
        "deterministic cudnn_deterministic cudnn_benchmark use_deterministic_algorithms",
        Synonym({"seed": "what is read and drawn follows from it alone"}),
    ),
    (
        "profiling.run profile profiler profiling enable_profiling profile_steps trace profile_freq",
        Synonym({}, "stillreel doctor measures this machine, and metrics.jsonl tells a run's seconds by part"),
    ),
)
