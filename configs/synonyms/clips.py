"""Clips, captions, models, data, evaluation and search, as other codebases call them."""

from __future__ import annotations

from stillreel.configs.synonyms.synonym import Synonym

_TOWERS = "the image and text towers come whole, with model.towers.name and model.towers.pretrained"
_NO_VIDEO = "clips have a number of frames and no rate; finetune, evaluate and index sample those of videos"
_NO_AUGMENTATION = (
    "training on clips has no other augmentation than a crop; what a clip shows is drawn by animate's grammar="
)
_SIZE = {"size": "", "max_side": ""}
_START = {
    "init": "weights to start from",
    "resume": "go on with a run",
    "checkpoint": "",
    "model.towers.pretrained": "CLIP's weights, by open_clip's tag or a file",
    "CHECKPOINT": "",
    "FILE": "",
}
_MODEL = {
    "model": "a preset: mean-b32, seq-b32, clip2video-b32, stan-b32, ...",
    "model.towers.name": "the CLIP inside, by open_clip's name",
}
_DATA = {"data": "", "DATA": "", "SOURCE": "", "VIDEOS": "", "TABLE": "", "TARS": "", "INDEX": ""}
_HELD_OUT = {"eval.data": "", "files.validation": "", "split": ""}
_CAPTION_COLUMN = {"source.caption": "", "caption": "", "column.caption": ""}
_LAYERS = {"model.layers": "blocks over the frames", "model.stan.depth": "", "model.rerank.layers": ""}

TERMS: tuple[tuple[str, Synonym], ...] = (
    (
        "context_length max_words max_tokens max_seq_len max_seq_length seq_len seq_length sequence_length max_length "
        "max_len text_length max_text_length max_text_len max_txt_l max_txt_len n_ctx num_tokens tokens text_len "
        "words force_context_length max_caption_length caption_length max_position_embeddings block_size "
        "text_context_length max_query_len tokenizer_max_length max_token_len max_num_tokens",
        Synonym({"context_length": ""}, "this command cuts no captions"),
    ),
    (
        "frames max_frames num_frames n_frames num_frm n_frm frame_num frames_per_clip video_frames max_num_frames "
        "clip_len clip_length num_frames_per_clip n_frms num_video_frames temporal_size num_segment temporal_length "
        "n_obs_steps t frame_count",
        Synonym({"frames": ""}),
    ),
    (
        "num_segments n_segments",
        Synonym({"frames": "", "video.sampler=segments": "one of each of so many equal parts"}),
    ),
    (
        "size image_size img_size resolution input_size input_resolution frame_size res crop_size image_res img_res "
        "spatial_size force_image_size height width image_height image_resolution frame_res video_size input_res "
        "train_resolution",
        Synonym(_SIZE),
    ),
    (
        "max_size longest_edge max_image_size resize resize_to image_max_size resize_mode",
        Synonym({"max_side": "", "size": ""}),
    ),
    ("min_size min_image_size min_resolution", Synonym({"min_side": ""})),
    ("max_image_pixels max_area", Synonym({"max_pixels": "", "video.max_pixels": ""})),
    (
        "feature_framerate",
        Synonym(
            {"video.per_second": "of sampler=fps, CLIP4Clip's", "video.every": "of sampler=clip2video, CLIP2Video's"},
            _NO_VIDEO,
        ),
    ),
    (
        "fps frame_rate sample_fps video_fps target_fps sampling_fps frames_per_second sampling_rate_fps",
        Synonym(
            {"fps": "", "video.per_second": ""},
            _NO_VIDEO,
        ),
    ),
    (
        "stride frame_stride frame_interval sample_rate sampling_rate temporal_stride frame_step frame_skip "
        "sample_interval",
        Synonym({"video.every": "", "video.per_second": ""}, _NO_VIDEO),
    ),
    ("slice_framepos slice_frames", Synonym({"video.slice": "0 is head, 1 tail, 2 uniform"}, _NO_VIDEO)),
    (
        "frame_sampling sampling_strategy sampling_type sampling sampler sample_strategy frame_sampler video_sampling "
        "sample_type uniform_sampling frame_sample video_sampler sampling_mode frame_selection",
        Synonym({"video.sampler": "fps, segments or clip2video", "video.slice": ""}, _NO_VIDEO),
    ),
    (
        "frame_order train_frame_order eval_frame_order shuffle_frames test_frame_order temporal_shuffle",
        Synonym({"video.order": "kept or shuffled"}, _NO_VIDEO),
    ),
    (
        "crop center_crop random_crop random_resized_crop rrc rand_resize_crop crop_type crop_mode train_crop",
        Synonym({"crop": "center or random", "views.crops": "in tests"}, _NO_AUGMENTATION),
    ),
    (
        "aug aug_cfg augmentation augmentations augment data_aug data_augmentation randaugment auto_augment mixup "
        "cutmix hflip random_flip horizontal_flip re_prob random_erasing transforms train_aug use_aug",
        Synonym({"crop=random": "", "grammar": "", "looks": ""}, _NO_AUGMENTATION),
    ),
    (
        "color_jitter colour color lut filter grayscale color_jitter_prob gray_scale_prob",
        Synonym({"looks": ""}, _NO_AUGMENTATION),
    ),
    (
        "image_mean image_std mean std normalize interpolation image_interpolation image_resize_mode pixel_mean",
        Synonym(
            {}, "pictures are normalized as their CLIP was trained, and scaled without aliasing; neither is a setting"
        ),
    ),
    (
        "num_crops n_crops test_crops num_spatial_crops num_spatial_views three_crop test_num_crop spatial_crops",
        Synonym({"views.crops": ""}),
    ),
    (
        "num_clips n_clips test_segments num_temporal_clips num_temporal_views n_views num_views test_num_segment "
        "temporal_clips num_ensemble_views",
        Synonym({"views.segments": ""}),
    ),
    # The model.
    (
        "model_name model model_type arch architecture backbone vision_model clip_model pretrained_clip_name "
        "clip_name clip_arch visual_encoder vision_encoder image_encoder text_encoder encoder tower towers model.name "
        "model.flavor flavor network base_model model_name_or_path cross_model clip_backbone vision_backbone "
        "clip_version vit model_config model_id policy.type base_encoder visual_backbone",
        Synonym(
            _MODEL,
            "a model is chosen where it is trained, by model= of pretrain and finetune; it is kept in its checkpoint",
        ),
    ),
    (
        "pretrained pretrained_weights use_pretrained clip_pretrained pretrained_tag clip_weights pretrained_clip "
        "clip_path pretrained_image pretrained_text clip_checkpoint",
        Synonym({"model.towers.pretrained": _START["model.towers.pretrained"]} | _START),
    ),
    (
        "init init_model init_from init_checkpoint init_ckpt_path initial_load_path finetune_from load_from "
        "load_checkpoint load load_path warm_start weights checkpoint checkpoint_path ckpt ckpt_path "
        "pretrained_checkpoint pretrained_model_path model_path pretrained_path pretrained_model from_pretrained "
        "restore restore_from restore_path load_weights model_weights snapshot policy.path weight_path "
        "model_checkpoint pretrain_path model_file",
        Synonym(_START),
    ),
    (
        "resume_model resume resume_from resume_from_checkpoint resume_path resume_training auto_resume continue "
        "continue_from continue_training restart load_step resume_from_step last_checkpoint latest_checkpoint "
        "resume_checkpoint resume_ckpt resume_id",
        Synonym(
            {"resume": "auto: where OUT was left; never; or a checkpoint"},
            "run the command again: it goes on by itself",
        ),
    ),
    (
        "overwrite overwrite_output_dir force exist_ok clobber",
        Synonym({"resume=never": "OUT must be new"}, "nothing is overwritten"),
    ),
    (
        "sim_header similarity_header agg_module temporal_encoder temporal_type temporal_model temporal_module "
        "temporal pooling aggregation frame_agg temporal_head video_header pool_type temporal_pooling",
        Synonym(
            {
                "model.temporal": "mean, seq (seqTransf), lstm (seqLSTM), tdb or stan",
                "model.head": "tight for tightTransf",
            }
        ),
    ),
    ("loose_type interaction wti", Synonym({"model.head": "dot, mug or tight"})),
    ("linear_patch patch3d conv3d", Synonym({"model.patches": "2d or 3d"})),
    (
        "cross_num_hidden_layers num_hidden_layers num_layers n_layers n_layer layers depth temporal_layers "
        "num_temporal_layers",
        Synonym(_LAYERS),
    ),
    (
        "text_num_hidden_layers visual_num_hidden_layers vision_layers text_layers hidden_size embed_dim dim head_dim "
        "n_embd vocab_size aspect_ratio patch_size num_heads n_heads n_head vision_width mlp_ratio text_width "
        "video_dim",
        Synonym({"model.towers.name": "the CLIP, with all its sizes"}, _TOWERS),
    ),
    (
        "tokenizer tokenizer_path tokenizer_name bpe_path tokenizer.path tokenizer.name hf_assets_path",
        Synonym({}, _TOWERS),
    ),
    ("quick_gelu force_quick_gelu", Synonym({"quick_gelu": "", "model.towers.name": "as ViT-B-32-quickgelu"})),
    ("num_centers centers_num cluster_num num_clusters center_num", Synonym({"model.tab.centers": ""})),
    ("center_weight tab_weight", Synonym({"model.tab.weight": "", "peer.center_weight": ""})),
    (
        "reranker rerank rerank_k rerank_top_k num_rerank topk_rerank",
        Synonym({"rerank": "", "model.rerank.layers": ""}),
    ),
    (
        "data data_path data_dir data_root root_dir root train_data train_dataset train_path train_dir datasets "
        "dataset dataset_path dataset_dir dataset.root dataset.path dataset.repo_id data_folder shards train_shards "
        "input input_dir input_path input_folder tar tars urls wds train_files sources source url_list data_dirs "
        "train_urls src base_dir",
        Synonym(_DATA),
    ),
    (
        "dataset.name dataset.type dataset_name dataset_type datatype benchmark task task_type data_name",
        Synonym({"BENCHMARK": "msrvtt, msvd, ..., or folder for one's own"} | _DATA),
    ),
    (
        "val_data eval_data validation_data valid_data val_path val_dataset eval_dataset validation_dataset val_dir "
        "heldout dev_data val_csv imagenet_val eval_split val_split validation_split dataset.eval_split "
        "validation.dataset test_data val_shards",
        Synonym(_HELD_OUT),
    ),
    ("train_csv train_list train_file train_annotation train_json", Synonym({"files.train": "", "data": ""})),
    ("test_csv test_list test_file test_annotation test_json", Synonym({"files.test": ""})),
    (
        "video_path video_dir video_root videos video_folder videos_path media_dir video_data_path vis_root",
        Synonym({"videos": "", "VIDEOS": "", "data": ""}),
    ),
    ("features_path feature_path features feature_dir precomputed", Synonym({"prepared": ""})),
    (
        "annotation annotations ann_file anno_path ann_path caption_file captions_file json_path caption_path "
        "text_path",
        Synonym({"files.captions": "", "files.train": "", "files.test": "", "source.captions": ""}),
    ),
    (
        "num_classes nb_classes n_classes class_names label_file labels label_path",
        Synonym({"files.labels": "", "objective.classes": ""}),
    ),
    (
        "caption_column caption_key caption_col caption_field text_column text_col text_key txt_key csv_caption_key "
        "json_text_key",
        Synonym(_CAPTION_COLUMN),
    ),
    (
        "image_column image_key image_col img_key img_col csv_img_key path_column image_field filepath video_column "
        "video_key",
        Synonym({"source.picture": "", "column.video": ""}),
    ),
    ("url_column url_col url_key", Synonym({"url": ""})),
    (
        "data_weights dataset_weights sampling_weights mixture mixture_weights mixing_weights "
        "train_data_upsampling_factors sampling_probs",
        Synonym({"data": "a mixture: DATA*WEIGHT,DATA*WEIGHT", "DATA": "a mixture: DATA*WEIGHT,DATA*WEIGHT"}),
    ),
    (
        "shuffle shuffle_buffer shuffle_buffer_size buffer_size shuffle_size shuffle_window shuffle_block_size bufsize",
        Synonym({"window": "", "lanes": ""}, "what training reads is always shuffled, by seed"),
    ),
    (
        "dataset_resampled resampled with_replacement replacement",
        Synonym({"epochs": "every sample is read once in each"}, "every sample is read once an epoch"),
    ),
    ("cache_dir cache_path local_cache cache_folder cache_size cache_limit", Synonym({"cache": "", "cache_gb": ""})),
    (
        "ignore_errors skip_errors skip_bad max_errors max_failures tolerance warn_and_continue on_error skip_corrupt "
        "error_tolerance",
        Synonym({"max_bad": "", "max_rejects": "", "allow_missing": ""}),
    ),
    ("retries max_retries num_retries retry max_attempts", Synonym({"attempts": "", "retries": ""})),
    ("timeout max_seconds video_timeout decode_timeout", Synonym({"timeout": "", "video.max_seconds": ""})),
    (
        "gpu_decode decode_on_gpu dali nvdec gpu_augment",
        Synonym({"render=device": ""}, "videos are decoded on the CPU"),
    ),
    ("dsl use_dsl dual_softmax dual_softmax_loss", Synonym({"dual_softmax": ""})),
    ("qb_norm querybank_norm querybank", Synonym({"querybank": ""})),
    ("prompt template templates prompt_template prompts zeroshot_template class_prompt", Synonym({"prompt": ""})),
    ("top_k num_results n_results limit n max_results", Synonym({"k": ""}, "R@1, R@5 and R@10 are always told")),
    ("rerank_weight fine_weight fusion_weight", Synonym({"weight": ""})),
    ("query text_query q", Synonym({"TEXT": "", "queries": ""})),
    ("server_port listen bind host_port address server_name ip", Synonym({"port": "", "host": "", "ray": ""})),
    # Making clips.
    (
        "motion camera camera_motion camera_path ken_burns moves movement effect recipe zoom pan",
        Synonym(
            {"grammar": "film, still, jump, zoom, pan, nested, ..., or a YAML file"}, "the camera is animate's grammar="
        ),
    ),
    (
        "output_format save_format storage store_format video_format image_format encode_format",
        Synonym({"store": "", "towers": "", "json": ""}),
    ),
    ("format as_json json_output output_json", Synonym({"json": "", "store": "", "towers": ""})),
    ("jpeg_quality encode_quality crf image_quality video_quality", Synonym({"quality": ""})),
    (
        "samples_per_shard shard_samples maxcount samples_per_tar number_sample_per_shard rows_per_shard "
        "num_samples_per_shard",
        Synonym({"shard_size": ""}),
    ),
    ("disallowed_header_directives respect_robots", Synonym({"opt_outs": ""})),
    ("shard_prefix basename", Synonym({"name": ""})),
    ("ray_address ray_mode cluster", Synonym({"ray": ""})),
    ("incremental_mode incremental append", Synonym({"extend": ""}, "run the command again: it goes on by itself")),
    # Beside all.
    (
        "dry_run dry plan_only simulate check_only",
        Synonym({"dry_run": "", "simulate": ""}, "--print-config prints the settings and does nothing else"),
    ),
    (
        "config config_file config_path cfg cfg_path conf yaml preset_file job.config_file config_name configs",
        Synonym({"preset": "preset=FILE.yaml reads settings; --print-config writes them"}),
    ),
)
