CREATE TABLE IF NOT EXISTS `thorn_subscriptions` (`id` varchar(120) NOT NULL, `version` int NOT NULL, `owner` varchar(255), `url` longtext NOT NULL, `events` longtext NOT NULL, `secrets` longtext NOT NULL, `secret_expiry` longtext, `content_type` varchar(255) NOT NULL, `hmac_digest` varchar(16) NOT NULL, `headers` longtext, `description` longtext NOT NULL, `rate_limit` double, `enabled` smallint NOT NULL, `paused` smallint NOT NULL, `disabled_reason` longtext, `failing_since` bigint, `failures` int NOT NULL, `last_failure_at` bigint, `created_at` bigint NOT NULL, `updated_at` bigint NOT NULL, `extra` longtext, PRIMARY KEY (`id`), KEY `thorn_subscriptions_owner_id` (`owner`, `id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_patterns` (`pattern` varchar(200) NOT NULL, `owner` varchar(255) NOT NULL, `subscription_id` varchar(120) NOT NULL, PRIMARY KEY (`pattern`, `owner`, `subscription_id`), KEY `thorn_patterns_pattern_subscription_id` (`pattern`, `subscription_id`), KEY `thorn_patterns_subscription_id` (`subscription_id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_owners` (`id` bigint NOT NULL, `owner` varchar(255) NOT NULL, `ready_at` bigint, `tat` bigint, PRIMARY KEY (`id`), UNIQUE KEY `thorn_owners_owner` (`owner`), KEY `thorn_owners_ready_at` (`ready_at`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_recipients` (`id` bigint NOT NULL, `subscription_id` varchar(120) NOT NULL, `owner` varchar(255), `origin` varchar(270) NOT NULL, `ready_at` bigint, `paused` smallint NOT NULL, `blocked_until` bigint NOT NULL, `circuit` smallint NOT NULL, `probe_until` bigint, `tat` bigint, PRIMARY KEY (`id`), UNIQUE KEY `thorn_recipients_subscription_id` (`subscription_id`), KEY `thorn_recipients_ready_at_id` (`ready_at`, `id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_messages` (`id` binary(16) NOT NULL, `event` varchar(200) NOT NULL, `data` longblob NOT NULL, `at` bigint NOT NULL, `sender` varchar(255), `ordering_key` varchar(255), `expires_at` bigint, `extra` longtext, PRIMARY KEY (`id`), KEY `thorn_messages_sender_id` (`sender`, `id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_idempotency` (`digest` binary(32) NOT NULL, `message_id` binary(16) NOT NULL, `at` bigint NOT NULL, PRIMARY KEY (`digest`), KEY `thorn_idempotency_message_id` (`message_id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_outbox` (`message_id` binary(16) NOT NULL, `route_at` bigint NOT NULL, `tries` smallint NOT NULL, `leased_until` bigint, `token` varchar(64), `after_recipient` varchar(120), `cancelled` smallint NOT NULL, PRIMARY KEY (`message_id`), KEY `thorn_outbox_route_at_message_id` (`route_at`, `message_id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_queue` (`id` binary(24) NOT NULL, `recipient` bigint NOT NULL, `due_at` bigint NOT NULL, `tries` int NOT NULL, `leased_until` bigint, `token` varchar(64), `key_hash` bigint, `seq` bigint, PRIMARY KEY (`id`), KEY `thorn_queue_recipient_due_at_id` (`recipient`, `due_at`, `id`), KEY `thorn_queue_recipient_key_hash_seq` (`recipient`, `key_hash`, `seq`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_deliveries` (`id` binary(24) NOT NULL, `recipient` bigint NOT NULL, `state` smallint NOT NULL, `attempts` int NOT NULL, `created_at` bigint NOT NULL, `finished_at` bigint, `reason` longtext, `target` longtext, PRIMARY KEY (`id`), KEY `thorn_deliveries_recipient_id` (`recipient`, `id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_attempts` (`delivery_id` binary(24) NOT NULL, `at` bigint NOT NULL, `number` int NOT NULL, `duration` bigint NOT NULL, `status` smallint, `timed_out` smallint NOT NULL, `error` longtext, `headers` longtext, `body` longblob, PRIMARY KEY (`delivery_id`, `at`), KEY `thorn_attempts_at` (`at`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_ordering` (`recipient` bigint NOT NULL, `key_hash` bigint NOT NULL, `last` bigint NOT NULL, PRIMARY KEY (`recipient`, `key_hash`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

CREATE TABLE IF NOT EXISTS `thorn_schema_version` (`version_num` varchar(32) NOT NULL, PRIMARY KEY (`version_num`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=/*!80000 utf8mb4_0900_bin */ /*M!100600 utf8mb4_nopad_bin */;

INSERT INTO `thorn_schema_version` VALUES ('0001');

INSERT INTO thorn_subscriptions (id, version, owner, url, events, secrets, secret_expiry, content_type, hmac_digest, headers, description, rate_limit, enabled, paused, disabled_reason, failing_since, failures, last_failure_at, created_at, updated_at, extra) VALUES ('sub_01941f297c00e850baabbef200000000', 1, '42', 'http://127.0.0.1:39519/', '["article.*"]', '["whsec_b2YgdGVzdHMsIG5vdCBvZiBhbnkgcmVjaXBpZW50J3M="]', NULL, 'application/json', 'sha256', '{"X-Team": "blue"}', '', NULL, 1, 0, NULL, 1735689600000000, 1, 1735689600000000, 1735689600000000, 1735689600000000, NULL);

INSERT INTO thorn_patterns (pattern, owner, subscription_id) VALUES ('article.*', '42', 'sub_01941f297c00e850baabbef200000000');

INSERT INTO thorn_recipients (id, subscription_id, owner, origin, ready_at, paused, blocked_until, circuit, probe_until, tat) VALUES (4453164548087506517, 'sub_01941f297c00e850baabbef200000000', '42', 'http://127.0.0.1:39519', 1735689601000000, 0, 0, 0, NULL, NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES (X'01941f297c00e850baabbef200000001', 'article.delivered', X'7b227469746c65223a224772c3bcc39f65227d', 1735689600000000, '42', NULL, NULL, NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES (X'01941f297c00e850baabbef200000002', 'article.failed', X'7b227469746c65223a2269742773205c5c203130302025227d', 1735689600000000, NULL, NULL, NULL, '{"context": {"n": 1}}');

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES (X'01941f297c00e850baabbef200000003', 'article.unrouted', X'7b227469746c65223a227468697264227d', 1735689600000000, NULL, NULL, NULL, NULL);

INSERT INTO thorn_outbox (message_id, route_at, tries, leased_until, token, after_recipient, cancelled) VALUES (X'01941f297c00e850baabbef200000003', 0, 0, NULL, NULL, NULL, 0);

INSERT INTO thorn_queue (id, recipient, due_at, tries, leased_until, token, key_hash, seq) VALUES (X'01941f297c00e850baabbef2000000023dccd190071e6655', 4453164548087506517, 1735689601000000, 1, NULL, NULL, NULL, NULL);

INSERT INTO thorn_deliveries (id, recipient, state, attempts, created_at, finished_at, reason, target) VALUES (X'01941f297c00e850baabbef2000000013dccd190071e6655', 4453164548087506517, 1, 1, 1735689600000000, 1735689600000000, NULL, NULL);

INSERT INTO thorn_deliveries (id, recipient, state, attempts, created_at, finished_at, reason, target) VALUES (X'01941f297c00e850baabbef2000000023dccd190071e6655', 4453164548087506517, 0, 1, 1735689600000000, NULL, 'status 500', NULL);

INSERT INTO thorn_attempts (delivery_id, at, number, duration, status, timed_out, error, headers, body) VALUES (X'01941f297c00e850baabbef2000000013dccd190071e6655', 1735689600000000, 1, 4572, 200, 0, NULL, '{"content-length": "0"}', NULL);

INSERT INTO thorn_attempts (delivery_id, at, number, duration, status, timed_out, error, headers, body) VALUES (X'01941f297c00e850baabbef2000000023dccd190071e6655', 1735689600000000, 1, 1388, 500, 0, NULL, '{"content-length": "0"}', NULL);

