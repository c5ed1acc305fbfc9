SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.bias_probes (
    run_id character varying(64) NOT NULL,
    step integer NOT NULL,
    staleness integer NOT NULL,
    correction character varying(16) NOT NULL,
    "time" double precision NOT NULL,
    shards integer NOT NULL,
    rollouts integer NOT NULL,
    learning_rate double precision,
    drift double precision,
    log_ratio_rms double precision,
    clip_fraction double precision,
    bias_squared double precision,
    bias_squared_stderr double precision,
    norm_squared double precision,
    norm_squared_stderr double precision,
    harmful double precision,
    harmful_stderr double precision,
    cosine double precision,
    cosine_stderr double precision,
    seconds double precision,
    non_finite text
);
CREATE TABLE public.calibrations (
    id character varying(64) NOT NULL,
    "time" double precision NOT NULL,
    setting text NOT NULL,
    segments text NOT NULL,
    run_ids text NOT NULL,
    learner_steps integer NOT NULL,
    cost_steps double precision NOT NULL,
    seconds double precision NOT NULL
);
CREATE TABLE public.drifts (
    run_id character varying(64) NOT NULL,
    step integer NOT NULL,
    lag integer NOT NULL,
    norm double precision,
    rate_sum double precision,
    non_finite text
);
CREATE TABLE public.evaluations (
    run_id character varying(64) NOT NULL,
    step integer NOT NULL,
    "time" double precision NOT NULL,
    rollouts integer NOT NULL,
    reward double precision,
    reward_std double precision,
    gold double precision,
    non_finite text
);
CREATE TABLE public.events (
    id integer NOT NULL,
    run_id character varying(64) NOT NULL,
    step integer,
    "time" double precision NOT NULL,
    level character varying(16) NOT NULL,
    kind character varying(32) NOT NULL,
    message text NOT NULL,
    data text
);
CREATE SEQUENCE public.events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.events_id_seq OWNED BY public.events.id;
CREATE TABLE public.recommendations (
    id integer NOT NULL,
    "time" double precision NOT NULL,
    question text NOT NULL,
    answer text NOT NULL,
    evidence text NOT NULL
);
CREATE SEQUENCE public.recommendations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.recommendations_id_seq OWNED BY public.recommendations.id;
CREATE TABLE public.rollups (
    run_id character varying(64) NOT NULL,
    metric character varying(32) NOT NULL,
    block integer NOT NULL,
    low double precision,
    low_step integer,
    high double precision,
    high_step integer,
    mean double precision,
    not_finite_step integer
);
CREATE TABLE public.runs (
    id character varying(64) NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    ended_at double precision,
    heartbeat_at double precision,
    heartbeat_count integer NOT NULL,
    host text,
    pid integer,
    pid_started double precision,
    stop_requested boolean NOT NULL,
    device text,
    threads integer,
    parameters bigint,
    config text,
    workload text,
    "group" text,
    seed integer,
    code_version text,
    schema_version text,
    archived boolean NOT NULL,
    notes text,
    chance_reward double precision,
    outcome text,
    outcome_reason text,
    collapse_step integer,
    slide_step integer,
    reward_first double precision,
    reward_best double precision,
    reward_last double precision,
    reward_final double precision,
    gold_reward_first double precision,
    gold_reward_last double precision,
    gold_reward_final double precision,
    error text,
    unmeasured text,
    recommendation_id integer,
    non_finite text,
    source text,
    process_mark text
);
CREATE TABLE public.samples (
    run_id character varying(64) NOT NULL,
    step integer NOT NULL,
    number integer NOT NULL,
    prompt text NOT NULL,
    completion text NOT NULL,
    reward double precision,
    gold double precision,
    advantage double precision,
    staleness integer,
    ratio double precision,
    non_finite text
);
CREATE TABLE public.steps (
    run_id character varying(64) NOT NULL,
    step integer NOT NULL,
    "time" double precision NOT NULL,
    learning_rate double precision,
    staleness_mean double precision,
    staleness_max double precision,
    sampled_at_step integer,
    update_norm double precision,
    cycle_drift double precision,
    displacement double precision,
    path_length double precision,
    approx_kl double precision,
    kl_to_start double precision,
    log_ratio_rms double precision,
    clip_fraction_low double precision,
    clip_fraction_high double precision,
    outside_clip_fraction double precision,
    clipped_gradient_mass double precision,
    ess_fraction double precision,
    sequence_ess_fraction double precision,
    gradient_cosine double precision,
    grad_norm double precision,
    entropy double precision,
    reward_mean double precision,
    reward_std double precision,
    gold_reward_mean double precision,
    response_length double precision,
    zero_variance_groups integer,
    dropped_groups integer,
    clipping_radii text,
    m2 double precision,
    loss double precision,
    seconds_generate double precision,
    seconds_learn double precision,
    seconds_measure double precision,
    seconds_wait double precision,
    tokens bigint,
    reasons text,
    extra text,
    non_finite text,
    weight_radii text
);
CREATE TABLE public.tags (
    run_id character varying(64) NOT NULL,
    tag character varying(64) NOT NULL
);
ALTER TABLE ONLY public.events ALTER COLUMN id SET DEFAULT nextval('public.events_id_seq'::regclass);
ALTER TABLE ONLY public.recommendations ALTER COLUMN id SET DEFAULT nextval('public.recommendations_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0006');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 0, 20, 'clipped', 1795000000.123456, 50, 60, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, '["learning_rate", "drift", "log_ratio_rms", "norm_squared", "norm_squared_stderr", "harmful", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 1, 21, 'clipped', 1795000001.123456, 51, 61, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '["learning_rate", "drift", "bias_squared_stderr", "norm_squared", "norm_squared_stderr", "cosine_stderr", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 2, 22, 'clipped', 1795000002.123456, 52, 62, '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', '["learning_rate", "bias_squared", "bias_squared_stderr", "norm_squared", "cosine", "cosine_stderr", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 3, 23, 'clipped', 1795000003.123456, 53, 63, NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, '["clip_fraction", "bias_squared", "bias_squared_stderr", "harmful_stderr", "cosine", "cosine_stderr"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 4, 24, 'clipped', 1795000004.123456, 54, 64, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, '["log_ratio_rms", "clip_fraction", "bias_squared", "harmful", "harmful_stderr", "cosine"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000a', 5, 25, 'clipped', 1795000005.123456, 55, 65, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, '["drift", "log_ratio_rms", "clip_fraction", "norm_squared_stderr", "harmful", "harmful_stderr"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 0, 20, 'clipped', 1795000000.123456, 50, 60, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, '["learning_rate", "drift", "log_ratio_rms", "norm_squared", "norm_squared_stderr", "harmful", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 1, 21, 'clipped', 1795000001.123456, 51, 61, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '["learning_rate", "drift", "bias_squared_stderr", "norm_squared", "norm_squared_stderr", "cosine_stderr", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 2, 22, 'clipped', 1795000002.123456, 52, 62, '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', '["learning_rate", "bias_squared", "bias_squared_stderr", "norm_squared", "cosine", "cosine_stderr", "seconds"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 3, 23, 'clipped', 1795000003.123456, 53, 63, NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, '["clip_fraction", "bias_squared", "bias_squared_stderr", "harmful_stderr", "cosine", "cosine_stderr"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 4, 24, 'clipped', 1795000004.123456, 54, 64, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, '["log_ratio_rms", "clip_fraction", "bias_squared", "harmful", "harmful_stderr", "cosine"]');
INSERT INTO public.bias_probes VALUES ('20261124-083758-00000b', 5, 25, 'clipped', 1795000005.123456, 55, 65, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, '["drift", "log_ratio_rms", "clip_fraction", "norm_squared_stderr", "harmful", "harmful_stderr"]');
INSERT INTO public.calibrations VALUES ('c', 1795000001.123456, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '[{"a": {"$float": "inf"}}]', '["20261124-083758-00000a", "20261124-083758-00000b"]', 51, 1795000001.123456, 1795000001.123456);
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 0, 20, '-Infinity', NULL, '["norm"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 1, 21, NULL, -1e-300, NULL);
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 2, 22, -1e-300, 0.30000000000000004, NULL);
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 3, 23, 0.30000000000000004, NULL, '["rate_sum"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 4, 24, NULL, 'Infinity', '["norm", "rate_sum"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000a', 5, 25, 'Infinity', '-Infinity', '["norm", "rate_sum"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 0, 20, '-Infinity', NULL, '["norm"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 1, 21, NULL, -1e-300, NULL);
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 2, 22, -1e-300, 0.30000000000000004, NULL);
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 3, 23, 0.30000000000000004, NULL, '["rate_sum"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 4, 24, NULL, 'Infinity', '["norm", "rate_sum"]');
INSERT INTO public.drifts VALUES ('20261124-083758-00000b', 5, 25, 'Infinity', '-Infinity', '["norm", "rate_sum"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 0, 1795000000.123456, 30, 1795000000.123456, -1e-300, 0.30000000000000004, NULL);
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 1, 1795000001.123456, 31, 1795000001.123456, 0.30000000000000004, NULL, '["gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 2, 1795000002.123456, 32, 1795000002.123456, NULL, 'Infinity', '["reward_std", "gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 3, 1795000003.123456, 33, 1795000003.123456, 'Infinity', '-Infinity', '["reward_std", "gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 4, 1795000004.123456, 34, 1795000004.123456, '-Infinity', NULL, '["reward_std"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000a', 5, 1795000005.123456, 35, 1795000005.123456, NULL, -1e-300, NULL);
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 0, 1795000000.123456, 30, 1795000000.123456, -1e-300, 0.30000000000000004, NULL);
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 1, 1795000001.123456, 31, 1795000001.123456, 0.30000000000000004, NULL, '["gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 2, 1795000002.123456, 32, 1795000002.123456, NULL, 'Infinity', '["reward_std", "gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 3, 1795000003.123456, 33, 1795000003.123456, 'Infinity', '-Infinity', '["reward_std", "gold"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 4, 1795000004.123456, 34, 1795000004.123456, '-Infinity', NULL, '["reward_std"]');
INSERT INTO public.evaluations VALUES ('20261124-083758-00000b', 5, 1795000005.123456, 35, 1795000005.123456, NULL, -1e-300, NULL);
INSERT INTO public.events VALUES (1, '20261124-083758-00000a', 0, 1795000000.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 0', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO public.events VALUES (2, '20261124-083758-00000a', 1, 1795000001.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 1', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO public.events VALUES (3, '20261124-083758-00000a', 2, 1795000002.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 2', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO public.events VALUES (4, '20261124-083758-00000a', 3, 1795000003.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 3', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO public.events VALUES (5, '20261124-083758-00000a', 4, 1795000004.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 4', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO public.events VALUES (6, '20261124-083758-00000a', 5, 1795000005.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 5', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO public.events VALUES (7, '20261124-083758-00000b', 0, 1795000000.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 0', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO public.events VALUES (8, '20261124-083758-00000b', 1, 1795000001.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 1', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO public.events VALUES (9, '20261124-083758-00000b', 2, 1795000002.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 2', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO public.events VALUES (10, '20261124-083758-00000b', 3, 1795000003.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 3', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO public.events VALUES (11, '20261124-083758-00000b', 4, 1795000004.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 4', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO public.events VALUES (12, '20261124-083758-00000b', 5, 1795000005.123456, 'warning', 'a kind', 'line one;
üλ ''3'' \n 5', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO public.recommendations VALUES (1, 1795000001.123456, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '["20261124-083758-00000a", "20261124-083758-00000b"]');
INSERT INTO public.runs VALUES ('20261124-083758-00000a', 'line one;
üλ ''1'' \n 0', 'line one;
üλ ''2'' \n 0', 'finished', 1795000000.123456, -1e-300, 0.30000000000000004, NULL, 80, 'line one;
üλ ''9'' \n 0', 100, -1e-300, false, 'line one;
üλ ''14'' \n 0', 150, 160, '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', 'line one;
üλ ''18'' \n 0', 'line one;
üλ ''19'' \n 0', 200, 'line one;
üλ ''21'' \n 0', 'line one;
üλ ''22'' \n 0', false, 'line one;
üλ ''24'' \n 0', NULL, 'line one;
üλ ''26'' \n 0', 'line one;
üλ ''27'' \n 0', 280, 290, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, 'line one;
üλ ''37'' \n 0', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', 390, '["heartbeat_at", "chance_reward", "reward_best", "reward_last", "reward_final"]', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', 'line one;
üλ ''12'' \n 0');
INSERT INTO public.runs VALUES ('20261124-083758-00000b', 'line one;
üλ ''1'' \n 1', 'line one;
üλ ''2'' \n 1', 'collapsed', 1795000001.123456, 0.30000000000000004, NULL, 'Infinity', 81, 'line one;
üλ ''9'' \n 1', 101, 0.30000000000000004, true, 'line one;
üλ ''14'' \n 1', 151, 161, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', 'line one;
üλ ''18'' \n 1', 'line one;
üλ ''19'' \n 1', 201, 'line one;
üλ ''21'' \n 1', 'line one;
üλ ''22'' \n 1', true, 'line one;
üλ ''24'' \n 1', 'Infinity', 'line one;
üλ ''26'' \n 1', 'line one;
üλ ''27'' \n 1', 281, 291, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'line one;
üλ ''37'' \n 1', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', 391, '["ended_at", "heartbeat_at", "chance_reward", "reward_first", "reward_best", "reward_last", "gold_reward_final"]', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', 'line one;
üλ ''12'' \n 1');
INSERT INTO public.samples VALUES ('20261124-083758-00000a', 10, 20, 'line one;
üλ ''3'' \n 0', 'line one;
üλ ''4'' \n 0', -1e-300, 0.30000000000000004, NULL, 80, '-Infinity', '["advantage", "ratio"]');
INSERT INTO public.samples VALUES ('20261124-083758-00000a', 11, 21, 'line one;
üλ ''3'' \n 1', 'line one;
üλ ''4'' \n 1', 0.30000000000000004, NULL, 'Infinity', 81, NULL, '["gold", "advantage"]');
INSERT INTO public.samples VALUES ('20261124-083758-00000a', 12, 22, 'line one;
üλ ''3'' \n 2', 'line one;
üλ ''4'' \n 2', NULL, 'Infinity', '-Infinity', 82, -1e-300, '["reward", "gold", "advantage"]');
INSERT INTO public.samples VALUES ('20261124-083758-00000b', 10, 20, 'line one;
üλ ''3'' \n 0', 'line one;
üλ ''4'' \n 0', -1e-300, 0.30000000000000004, NULL, 80, '-Infinity', '["advantage", "ratio"]');
INSERT INTO public.samples VALUES ('20261124-083758-00000b', 11, 21, 'line one;
üλ ''3'' \n 1', 'line one;
üλ ''4'' \n 1', 0.30000000000000004, NULL, 'Infinity', 81, NULL, '["gold", "advantage"]');
INSERT INTO public.samples VALUES ('20261124-083758-00000b', 12, 22, 'line one;
üλ ''3'' \n 2', 'line one;
üλ ''4'' \n 2', NULL, 'Infinity', '-Infinity', 82, -1e-300, '["reward", "gold", "advantage"]');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 0, 1795000000.123456, '-Infinity', NULL, -1e-300, 60, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', 270, 280, '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, 370, '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', '["learning_rate", "update_norm", "cycle_drift", "displacement", "log_ratio_rms", "clip_fraction_low", "clip_fraction_high", "sequence_ess_fraction", "gradient_cosine", "grad_norm", "gold_reward_mean", "response_length", "m2", "loss", "seconds_generate"]', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 1, 1795000001.123456, NULL, -1e-300, 0.30000000000000004, 61, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', 271, 281, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 371, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '["update_norm", "cycle_drift", "kl_to_start", "log_ratio_rms", "clip_fraction_low", "ess_fraction", "sequence_ess_fraction", "gradient_cosine", "reward_std", "gold_reward_mean", "response_length", "m2", "loss", "seconds_wait"]', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 2, 1795000002.123456, -1e-300, 0.30000000000000004, NULL, 62, '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, 272, 282, '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', 372, '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '["staleness_max", "update_norm", "approx_kl", "kl_to_start", "log_ratio_rms", "clipped_gradient_mass", "ess_fraction", "sequence_ess_fraction", "reward_mean", "reward_std", "gold_reward_mean", "m2", "seconds_measure", "seconds_wait"]', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 3, 1795000003.123456, 0.30000000000000004, NULL, 'Infinity', 63, NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 273, 283, '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', 373, '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', '["staleness_mean", "staleness_max", "path_length", "approx_kl", "kl_to_start", "outside_clip_fraction", "clipped_gradient_mass", "ess_fraction", "entropy", "reward_mean", "reward_std", "seconds_learn", "seconds_measure", "seconds_wait"]', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 4, 1795000004.123456, NULL, 'Infinity', '-Infinity', 64, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, 274, 284, '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, 374, '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', '["learning_rate", "staleness_mean", "staleness_max", "displacement", "path_length", "approx_kl", "clip_fraction_high", "outside_clip_fraction", "clipped_gradient_mass", "grad_norm", "entropy", "reward_mean", "seconds_generate", "seconds_learn", "seconds_measure"]', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000a', 5, 1795000005.123456, 'Infinity', '-Infinity', NULL, 65, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 275, 285, '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 375, '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', '["learning_rate", "staleness_mean", "cycle_drift", "displacement", "path_length", "clip_fraction_low", "clip_fraction_high", "outside_clip_fraction", "gradient_cosine", "grad_norm", "entropy", "response_length", "loss", "seconds_generate", "seconds_learn"]', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 0, 1795000000.123456, '-Infinity', NULL, -1e-300, 60, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', 270, 280, '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, 370, '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}', '["learning_rate", "update_norm", "cycle_drift", "displacement", "log_ratio_rms", "clip_fraction_low", "clip_fraction_high", "sequence_ess_fraction", "gradient_cosine", "grad_norm", "gold_reward_mean", "response_length", "m2", "loss", "seconds_generate"]', '{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 1, 1795000001.123456, NULL, -1e-300, 0.30000000000000004, 61, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', 271, 281, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 371, '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}', '["update_norm", "cycle_drift", "kl_to_start", "log_ratio_rms", "clip_fraction_low", "ess_fraction", "sequence_ess_fraction", "gradient_cosine", "reward_std", "gold_reward_mean", "response_length", "m2", "loss", "seconds_wait"]', '{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 2, 1795000002.123456, -1e-300, 0.30000000000000004, NULL, 62, '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, 272, 282, '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', 372, '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}', '["staleness_max", "update_norm", "approx_kl", "kl_to_start", "log_ratio_rms", "clipped_gradient_mass", "ess_fraction", "sequence_ess_fraction", "reward_mean", "reward_std", "gold_reward_mean", "m2", "seconds_measure", "seconds_wait"]', '{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 3, 1795000003.123456, 0.30000000000000004, NULL, 'Infinity', 63, NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 273, 283, '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', 373, '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}', '["staleness_mean", "staleness_max", "path_length", "approx_kl", "kl_to_start", "outside_clip_fraction", "clipped_gradient_mass", "ess_fraction", "entropy", "reward_mean", "reward_std", "seconds_learn", "seconds_measure", "seconds_wait"]', '{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 4, 1795000004.123456, NULL, 'Infinity', '-Infinity', 64, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, 274, 284, '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, 374, '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}', '["learning_rate", "staleness_mean", "staleness_max", "displacement", "path_length", "approx_kl", "clip_fraction_high", "outside_clip_fraction", "clipped_gradient_mass", "grad_norm", "entropy", "reward_mean", "seconds_generate", "seconds_learn", "seconds_measure"]', '{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO public.steps VALUES ('20261124-083758-00000b', 5, 1795000005.123456, 'Infinity', '-Infinity', NULL, 65, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 0.30000000000000004, NULL, 275, 285, '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', 0.30000000000000004, NULL, 'Infinity', '-Infinity', NULL, -1e-300, 375, '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}', '["learning_rate", "staleness_mean", "cycle_drift", "displacement", "path_length", "clip_fraction_low", "clip_fraction_high", "outside_clip_fraction", "gradient_cosine", "grad_norm", "entropy", "response_length", "loss", "seconds_generate", "seconds_learn"]', '{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO public.tags VALUES ('20261124-083758-00000a', 'A');
INSERT INTO public.tags VALUES ('20261124-083758-00000a', 'a');
INSERT INTO public.tags VALUES ('20261124-083758-00000a', 'ß');
INSERT INTO public.tags VALUES ('20261124-083758-00000b', 'a');
INSERT INTO public.tags VALUES ('20261124-083758-00000b', 'ß');
SELECT pg_catalog.setval('public.events_id_seq', 12, true);
SELECT pg_catalog.setval('public.recommendations_id_seq', 1, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.bias_probes
    ADD CONSTRAINT bias_probes_pkey PRIMARY KEY (run_id, step, staleness, correction);
ALTER TABLE ONLY public.calibrations
    ADD CONSTRAINT calibrations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.drifts
    ADD CONSTRAINT drifts_pkey PRIMARY KEY (run_id, step, lag);
ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT evaluations_pkey PRIMARY KEY (run_id, step);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.recommendations
    ADD CONSTRAINT recommendations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (run_id, metric, block);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.samples
    ADD CONSTRAINT samples_pkey PRIMARY KEY (run_id, step, number);
ALTER TABLE ONLY public.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (run_id, step);
ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_pkey PRIMARY KEY (run_id, tag);
CREATE INDEX ix_events_run_id ON public.events USING btree (run_id);
CREATE INDEX runs_by_status ON public.runs USING btree (status);
ALTER TABLE ONLY public.bias_probes
    ADD CONSTRAINT bias_probes_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.drifts
    ADD CONSTRAINT drifts_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT evaluations_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.rollups
    ADD CONSTRAINT rollups_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.samples
    ADD CONSTRAINT samples_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.steps
    ADD CONSTRAINT steps_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id) ON DELETE CASCADE;
