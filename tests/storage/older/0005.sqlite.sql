BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE bias_probes (
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER NOT NULL, 
	staleness INTEGER NOT NULL, 
	correction VARCHAR(16) NOT NULL, 
	time FLOAT NOT NULL, 
	shards INTEGER NOT NULL, 
	rollouts INTEGER NOT NULL, 
	learning_rate FLOAT, 
	drift FLOAT, 
	log_ratio_rms FLOAT, 
	clip_fraction FLOAT, 
	bias_squared FLOAT, 
	bias_squared_stderr FLOAT, 
	norm_squared FLOAT, 
	norm_squared_stderr FLOAT, 
	harmful FLOAT, 
	harmful_stderr FLOAT, 
	cosine FLOAT, 
	cosine_stderr FLOAT, 
	seconds FLOAT, 
	non_finite TEXT, 
	PRIMARY KEY (run_id, step, staleness, correction), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',0,20,'clipped',1.79500000012345600122e+09,50,60,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,'["learning_rate", "drift", "log_ratio_rms", "norm_squared", "norm_squared_stderr", "harmful", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',1,21,'clipped',1.79500000112345600125e+09,51,61,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,'["learning_rate", "drift", "bias_squared_stderr", "norm_squared", "norm_squared_stderr", "cosine_stderr", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',2,22,'clipped',1.79500000212345600129e+09,52,62,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,'["learning_rate", "bias_squared", "bias_squared_stderr", "norm_squared", "cosine", "cosine_stderr", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',3,23,'clipped',1.79500000312345600128e+09,53,63,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,'["clip_fraction", "bias_squared", "bias_squared_stderr", "harmful_stderr", "cosine", "cosine_stderr"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',4,24,'clipped',1.79500000412345600128e+09,54,64,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,'["log_ratio_rms", "clip_fraction", "bias_squared", "harmful", "harmful_stderr", "cosine"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000a',5,25,'clipped',1.79500000512345600132e+09,55,65,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,'["drift", "log_ratio_rms", "clip_fraction", "norm_squared_stderr", "harmful", "harmful_stderr"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',0,20,'clipped',1.79500000012345600122e+09,50,60,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,'["learning_rate", "drift", "log_ratio_rms", "norm_squared", "norm_squared_stderr", "harmful", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',1,21,'clipped',1.79500000112345600125e+09,51,61,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,'["learning_rate", "drift", "bias_squared_stderr", "norm_squared", "norm_squared_stderr", "cosine_stderr", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',2,22,'clipped',1.79500000212345600129e+09,52,62,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,'["learning_rate", "bias_squared", "bias_squared_stderr", "norm_squared", "cosine", "cosine_stderr", "seconds"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',3,23,'clipped',1.79500000312345600128e+09,53,63,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,'["clip_fraction", "bias_squared", "bias_squared_stderr", "harmful_stderr", "cosine", "cosine_stderr"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',4,24,'clipped',1.79500000412345600128e+09,54,64,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,'["log_ratio_rms", "clip_fraction", "bias_squared", "harmful", "harmful_stderr", "cosine"]');
INSERT INTO "bias_probes" VALUES('20261124-083758-00000b',5,25,'clipped',1.79500000512345600132e+09,55,65,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,'["drift", "log_ratio_rms", "clip_fraction", "norm_squared_stderr", "harmful", "harmful_stderr"]');
CREATE TABLE calibrations (
	id VARCHAR(64) NOT NULL, 
	time FLOAT NOT NULL, 
	setting TEXT NOT NULL, 
	segments TEXT NOT NULL, 
	run_ids TEXT NOT NULL, 
	learner_steps INTEGER NOT NULL, 
	cost_steps FLOAT NOT NULL, 
	seconds FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "calibrations" VALUES('c',1.79500000112345600125e+09,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','[{"a": {"$float": "inf"}}]','["20261124-083758-00000a", "20261124-083758-00000b"]',51,1.79500000112345600125e+09,1.79500000112345600125e+09);
CREATE TABLE drifts (
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER NOT NULL, 
	lag INTEGER NOT NULL, 
	norm FLOAT, 
	rate_sum FLOAT, 
	non_finite TEXT, 
	PRIMARY KEY (run_id, step, lag), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "drifts" VALUES('20261124-083758-00000a',0,20,-9e999,NULL,'["norm"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000a',1,21,NULL,-1.0e-300,NULL);
INSERT INTO "drifts" VALUES('20261124-083758-00000a',2,22,-1.0e-300,3.00000000000000044408e-01,NULL);
INSERT INTO "drifts" VALUES('20261124-083758-00000a',3,23,3.00000000000000044408e-01,NULL,'["rate_sum"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000a',4,24,NULL,9e999,'["norm", "rate_sum"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000a',5,25,9e999,-9e999,'["norm", "rate_sum"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000b',0,20,-9e999,NULL,'["norm"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000b',1,21,NULL,-1.0e-300,NULL);
INSERT INTO "drifts" VALUES('20261124-083758-00000b',2,22,-1.0e-300,3.00000000000000044408e-01,NULL);
INSERT INTO "drifts" VALUES('20261124-083758-00000b',3,23,3.00000000000000044408e-01,NULL,'["rate_sum"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000b',4,24,NULL,9e999,'["norm", "rate_sum"]');
INSERT INTO "drifts" VALUES('20261124-083758-00000b',5,25,9e999,-9e999,'["norm", "rate_sum"]');
CREATE TABLE evaluations (
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER NOT NULL, 
	time FLOAT NOT NULL, 
	rollouts INTEGER NOT NULL, 
	reward FLOAT, 
	reward_std FLOAT, 
	gold FLOAT, 
	non_finite TEXT, 
	PRIMARY KEY (run_id, step), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',0,1.79500000012345600122e+09,30,1.79500000012345600122e+09,-1.0e-300,3.00000000000000044408e-01,NULL);
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',1,1.79500000112345600125e+09,31,1.79500000112345600125e+09,3.00000000000000044408e-01,NULL,'["gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',2,1.79500000212345600129e+09,32,1.79500000212345600129e+09,NULL,9e999,'["reward_std", "gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',3,1.79500000312345600128e+09,33,1.79500000312345600128e+09,9e999,-9e999,'["reward_std", "gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',4,1.79500000412345600128e+09,34,1.79500000412345600128e+09,-9e999,NULL,'["reward_std"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000a',5,1.79500000512345600132e+09,35,1.79500000512345600132e+09,NULL,-1.0e-300,NULL);
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',0,1.79500000012345600122e+09,30,1.79500000012345600122e+09,-1.0e-300,3.00000000000000044408e-01,NULL);
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',1,1.79500000112345600125e+09,31,1.79500000112345600125e+09,3.00000000000000044408e-01,NULL,'["gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',2,1.79500000212345600129e+09,32,1.79500000212345600129e+09,NULL,9e999,'["reward_std", "gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',3,1.79500000312345600128e+09,33,1.79500000312345600128e+09,9e999,-9e999,'["reward_std", "gold"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',4,1.79500000412345600128e+09,34,1.79500000412345600128e+09,-9e999,NULL,'["reward_std"]');
INSERT INTO "evaluations" VALUES('20261124-083758-00000b',5,1.79500000512345600132e+09,35,1.79500000512345600132e+09,NULL,-1.0e-300,NULL);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER, 
	time FLOAT NOT NULL, 
	level VARCHAR(16) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	message TEXT NOT NULL, 
	data TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,'20261124-083758-00000a',0,1.79500000012345600122e+09,'warning','a kind','line one;
üλ ''3'' \n 0','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO "events" VALUES(2,'20261124-083758-00000a',1,1.79500000112345600125e+09,'warning','a kind','line one;
üλ ''3'' \n 1','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO "events" VALUES(3,'20261124-083758-00000a',2,1.79500000212345600129e+09,'warning','a kind','line one;
üλ ''3'' \n 2','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO "events" VALUES(4,'20261124-083758-00000a',3,1.79500000312345600128e+09,'warning','a kind','line one;
üλ ''3'' \n 3','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO "events" VALUES(5,'20261124-083758-00000a',4,1.79500000412345600128e+09,'warning','a kind','line one;
üλ ''3'' \n 4','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO "events" VALUES(6,'20261124-083758-00000a',5,1.79500000512345600132e+09,'warning','a kind','line one;
üλ ''3'' \n 5','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO "events" VALUES(7,'20261124-083758-00000b',0,1.79500000012345600122e+09,'warning','a kind','line one;
üλ ''3'' \n 0','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO "events" VALUES(8,'20261124-083758-00000b',1,1.79500000112345600125e+09,'warning','a kind','line one;
üλ ''3'' \n 1','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO "events" VALUES(9,'20261124-083758-00000b',2,1.79500000212345600129e+09,'warning','a kind','line one;
üλ ''3'' \n 2','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO "events" VALUES(10,'20261124-083758-00000b',3,1.79500000312345600128e+09,'warning','a kind','line one;
üλ ''3'' \n 3','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO "events" VALUES(11,'20261124-083758-00000b',4,1.79500000412345600128e+09,'warning','a kind','line one;
üλ ''3'' \n 4','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO "events" VALUES(12,'20261124-083758-00000b',5,1.79500000512345600132e+09,'warning','a kind','line one;
üλ ''3'' \n 5','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
CREATE TABLE recommendations (
	id INTEGER NOT NULL, 
	time FLOAT NOT NULL, 
	question TEXT NOT NULL, 
	answer TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "recommendations" VALUES(1,1.79500000112345600125e+09,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','["20261124-083758-00000a", "20261124-083758-00000b"]');
CREATE TABLE rollups (
	run_id VARCHAR(64) NOT NULL, 
	metric VARCHAR(32) NOT NULL, 
	block INTEGER NOT NULL, 
	low FLOAT, 
	low_step INTEGER, 
	high FLOAT, 
	high_step INTEGER, 
	mean FLOAT, 
	not_finite_step INTEGER, 
	PRIMARY KEY (run_id, metric, block), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE runs (
	id VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	status TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	started_at FLOAT, 
	ended_at FLOAT, 
	heartbeat_at FLOAT, 
	heartbeat_count INTEGER NOT NULL, 
	host TEXT, 
	pid INTEGER, 
	pid_started FLOAT, 
	stop_requested BOOLEAN NOT NULL, 
	device TEXT, 
	threads INTEGER, 
	parameters INTEGER, 
	config TEXT, 
	workload TEXT, 
	"group" TEXT, 
	seed INTEGER, 
	code_version TEXT, 
	schema_version TEXT, 
	archived BOOLEAN NOT NULL, 
	notes TEXT, 
	chance_reward FLOAT, 
	outcome TEXT, 
	outcome_reason TEXT, 
	collapse_step INTEGER, 
	slide_step INTEGER, 
	reward_first FLOAT, 
	reward_best FLOAT, 
	reward_last FLOAT, 
	reward_final FLOAT, 
	gold_reward_first FLOAT, 
	gold_reward_last FLOAT, 
	gold_reward_final FLOAT, 
	error TEXT, 
	unmeasured TEXT, 
	recommendation_id INTEGER, 
	non_finite TEXT, source TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('20261124-083758-00000a','line one;
üλ ''1'' \n 0','line one;
üλ ''2'' \n 0','finished',1.79500000012345600122e+09,-1.0e-300,3.00000000000000044408e-01,NULL,80,'line one;
üλ ''9'' \n 0',100,-1.0e-300,0,'line one;
üλ ''13'' \n 0',140,150,'{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}','line one;
üλ ''17'' \n 0','line one;
üλ ''18'' \n 0',190,'line one;
üλ ''20'' \n 0','line one;
üλ ''21'' \n 0',0,'line one;
üλ ''23'' \n 0',3.00000000000000044408e-01,'line one;
üλ ''25'' \n 0','line one;
üλ ''26'' \n 0',270,280,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,'line one;
üλ ''36'' \n 0','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}',380,'["heartbeat_at", "reward_last", "reward_final", "gold_reward_first"]','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO "runs" VALUES('20261124-083758-00000b','line one;
üλ ''1'' \n 1','line one;
üλ ''2'' \n 1','collapsed',1.79500000112345600125e+09,3.00000000000000044408e-01,NULL,9e999,81,'line one;
üλ ''9'' \n 1',101,3.00000000000000044408e-01,1,'line one;
üλ ''13'' \n 1',141,151,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','line one;
üλ ''17'' \n 1','line one;
üλ ''18'' \n 1',191,'line one;
üλ ''20'' \n 1','line one;
üλ ''21'' \n 1',1,'line one;
üλ ''23'' \n 1',NULL,'line one;
üλ ''25'' \n 1','line one;
üλ ''26'' \n 1',271,281,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,'line one;
üλ ''36'' \n 1','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}',381,'["ended_at", "heartbeat_at", "chance_reward", "reward_best", "reward_last", "reward_final"]','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
CREATE TABLE samples (
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	prompt TEXT NOT NULL, 
	completion TEXT NOT NULL, 
	reward FLOAT, 
	gold FLOAT, 
	advantage FLOAT, 
	staleness INTEGER, 
	ratio FLOAT, 
	non_finite TEXT, 
	PRIMARY KEY (run_id, step, number), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "samples" VALUES('20261124-083758-00000a',10,20,'line one;
üλ ''3'' \n 0','line one;
üλ ''4'' \n 0',-1.0e-300,3.00000000000000044408e-01,NULL,80,-9e999,'["advantage", "ratio"]');
INSERT INTO "samples" VALUES('20261124-083758-00000a',11,21,'line one;
üλ ''3'' \n 1','line one;
üλ ''4'' \n 1',3.00000000000000044408e-01,NULL,9e999,81,NULL,'["gold", "advantage"]');
INSERT INTO "samples" VALUES('20261124-083758-00000a',12,22,'line one;
üλ ''3'' \n 2','line one;
üλ ''4'' \n 2',NULL,9e999,-9e999,82,-1.0e-300,'["reward", "gold", "advantage"]');
INSERT INTO "samples" VALUES('20261124-083758-00000b',10,20,'line one;
üλ ''3'' \n 0','line one;
üλ ''4'' \n 0',-1.0e-300,3.00000000000000044408e-01,NULL,80,-9e999,'["advantage", "ratio"]');
INSERT INTO "samples" VALUES('20261124-083758-00000b',11,21,'line one;
üλ ''3'' \n 1','line one;
üλ ''4'' \n 1',3.00000000000000044408e-01,NULL,9e999,81,NULL,'["gold", "advantage"]');
INSERT INTO "samples" VALUES('20261124-083758-00000b',12,22,'line one;
üλ ''3'' \n 2','line one;
üλ ''4'' \n 2',NULL,9e999,-9e999,82,-1.0e-300,'["reward", "gold", "advantage"]');
CREATE TABLE steps (
	run_id VARCHAR(64) NOT NULL, 
	step INTEGER NOT NULL, 
	time FLOAT NOT NULL, 
	learning_rate FLOAT, 
	staleness_mean FLOAT, 
	staleness_max FLOAT, 
	sampled_at_step INTEGER, 
	update_norm FLOAT, 
	cycle_drift FLOAT, 
	displacement FLOAT, 
	path_length FLOAT, 
	approx_kl FLOAT, 
	kl_to_start FLOAT, 
	log_ratio_rms FLOAT, 
	clip_fraction_low FLOAT, 
	clip_fraction_high FLOAT, 
	outside_clip_fraction FLOAT, 
	clipped_gradient_mass FLOAT, 
	ess_fraction FLOAT, 
	sequence_ess_fraction FLOAT, 
	gradient_cosine FLOAT, 
	grad_norm FLOAT, 
	entropy FLOAT, 
	reward_mean FLOAT, 
	reward_std FLOAT, 
	gold_reward_mean FLOAT, 
	response_length FLOAT, 
	zero_variance_groups INTEGER, 
	dropped_groups INTEGER, 
	clipping_radii TEXT, 
	m2 FLOAT, 
	loss FLOAT, 
	seconds_generate FLOAT, 
	seconds_learn FLOAT, 
	seconds_measure FLOAT, 
	seconds_wait FLOAT, 
	tokens INTEGER, 
	reasons TEXT, 
	extra TEXT, 
	non_finite TEXT, weight_radii TEXT, 
	PRIMARY KEY (run_id, step), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES('20261124-083758-00000a',0,1.79500000012345600122e+09,-9e999,NULL,-1.0e-300,60,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,270,280,'{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}',NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,370,'{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}','["learning_rate", "update_norm", "cycle_drift", "displacement", "log_ratio_rms", "clip_fraction_low", "clip_fraction_high", "sequence_ess_fraction", "gradient_cosine", "grad_norm", "gold_reward_mean", "response_length", "m2", "loss", "seconds_generate"]','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000a',1,1.79500000112345600125e+09,NULL,-1.0e-300,3.00000000000000044408e-01,61,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,271,281,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}',9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,371,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','["update_norm", "cycle_drift", "kl_to_start", "log_ratio_rms", "clip_fraction_low", "ess_fraction", "sequence_ess_fraction", "gradient_cosine", "reward_std", "gold_reward_mean", "response_length", "m2", "loss", "seconds_wait"]','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000a',2,1.79500000212345600129e+09,-1.0e-300,3.00000000000000044408e-01,NULL,62,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,272,282,'{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}',-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,372,'{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}','["staleness_max", "update_norm", "approx_kl", "kl_to_start", "log_ratio_rms", "clipped_gradient_mass", "ess_fraction", "sequence_ess_fraction", "reward_mean", "reward_std", "gold_reward_mean", "m2", "seconds_measure", "seconds_wait"]','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000a',3,1.79500000312345600128e+09,3.00000000000000044408e-01,NULL,9e999,63,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,273,283,'{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}',NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,373,'{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}','["staleness_mean", "staleness_max", "path_length", "approx_kl", "kl_to_start", "outside_clip_fraction", "clipped_gradient_mass", "ess_fraction", "entropy", "reward_mean", "reward_std", "seconds_learn", "seconds_measure", "seconds_wait"]','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000a',4,1.79500000412345600128e+09,NULL,9e999,-9e999,64,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,274,284,'{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}',-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,374,'{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}','["learning_rate", "staleness_mean", "staleness_max", "displacement", "path_length", "approx_kl", "clip_fraction_high", "outside_clip_fraction", "clipped_gradient_mass", "grad_norm", "entropy", "reward_mean", "seconds_generate", "seconds_learn", "seconds_measure"]','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000a',5,1.79500000512345600132e+09,9e999,-9e999,NULL,65,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,275,285,'{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}',3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,375,'{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}','["learning_rate", "staleness_mean", "cycle_drift", "displacement", "path_length", "clip_fraction_low", "clip_fraction_high", "outside_clip_fraction", "gradient_cosine", "grad_norm", "entropy", "response_length", "loss", "seconds_generate", "seconds_learn"]','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',0,1.79500000012345600122e+09,-9e999,NULL,-1.0e-300,60,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,270,280,'{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}',NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,370,'{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}','["learning_rate", "update_norm", "cycle_drift", "displacement", "log_ratio_rms", "clip_fraction_low", "clip_fraction_high", "sequence_ess_fraction", "gradient_cosine", "grad_norm", "gold_reward_mean", "response_length", "m2", "loss", "seconds_generate"]','{"\u00e4 \"''": [0, {"deep": {"$float": "nan"}}], "0.01": 0.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',1,1.79500000112345600125e+09,NULL,-1.0e-300,3.00000000000000044408e-01,61,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,271,281,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}',9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,371,'{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}','["update_norm", "cycle_drift", "kl_to_start", "log_ratio_rms", "clip_fraction_low", "ess_fraction", "sequence_ess_fraction", "gradient_cosine", "reward_std", "gold_reward_mean", "response_length", "m2", "loss", "seconds_wait"]','{"\u00e4 \"''": [1, {"deep": {"$float": "nan"}}], "0.01": 1.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',2,1.79500000212345600129e+09,-1.0e-300,3.00000000000000044408e-01,NULL,62,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,272,282,'{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}',-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,372,'{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}','["staleness_max", "update_norm", "approx_kl", "kl_to_start", "log_ratio_rms", "clipped_gradient_mass", "ess_fraction", "sequence_ess_fraction", "reward_mean", "reward_std", "gold_reward_mean", "m2", "seconds_measure", "seconds_wait"]','{"\u00e4 \"''": [2, {"deep": {"$float": "nan"}}], "0.01": 2.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',3,1.79500000312345600128e+09,3.00000000000000044408e-01,NULL,9e999,63,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,273,283,'{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}',NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,373,'{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}','["staleness_mean", "staleness_max", "path_length", "approx_kl", "kl_to_start", "outside_clip_fraction", "clipped_gradient_mass", "ess_fraction", "entropy", "reward_mean", "reward_std", "seconds_learn", "seconds_measure", "seconds_wait"]','{"\u00e4 \"''": [3, {"deep": {"$float": "nan"}}], "0.01": 3.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',4,1.79500000412345600128e+09,NULL,9e999,-9e999,64,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,274,284,'{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}',-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,374,'{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}','["learning_rate", "staleness_mean", "staleness_max", "displacement", "path_length", "approx_kl", "clip_fraction_high", "outside_clip_fraction", "clipped_gradient_mass", "grad_norm", "entropy", "reward_mean", "seconds_generate", "seconds_learn", "seconds_measure"]','{"\u00e4 \"''": [4, {"deep": {"$float": "nan"}}], "0.01": 4.1}');
INSERT INTO "steps" VALUES('20261124-083758-00000b',5,1.79500000512345600132e+09,9e999,-9e999,NULL,65,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,3.00000000000000044408e-01,NULL,275,285,'{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}',3.00000000000000044408e-01,NULL,9e999,-9e999,NULL,-1.0e-300,375,'{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}','["learning_rate", "staleness_mean", "cycle_drift", "displacement", "path_length", "clip_fraction_low", "clip_fraction_high", "outside_clip_fraction", "gradient_cosine", "grad_norm", "entropy", "response_length", "loss", "seconds_generate", "seconds_learn"]','{"\u00e4 \"''": [5, {"deep": {"$float": "nan"}}], "0.01": 5.1}');
CREATE TABLE tags (
	run_id VARCHAR(64) NOT NULL, 
	tag VARCHAR(64) NOT NULL, 
	PRIMARY KEY (run_id, tag), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "tags" VALUES('20261124-083758-00000a','A');
INSERT INTO "tags" VALUES('20261124-083758-00000a','a');
INSERT INTO "tags" VALUES('20261124-083758-00000a','ß');
INSERT INTO "tags" VALUES('20261124-083758-00000b','a');
INSERT INTO "tags" VALUES('20261124-083758-00000b','ß');
CREATE INDEX runs_by_status ON runs (status);
CREATE INDEX ix_events_run_id ON events (run_id);
COMMIT;
