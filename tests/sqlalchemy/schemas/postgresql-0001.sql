CREATE TABLE IF NOT EXISTS "thorn_subscriptions" ("id" varchar(120) COLLATE "C" NOT NULL, "version" integer NOT NULL, "owner" varchar(255) COLLATE "C", "url" text NOT NULL, "events" text NOT NULL, "secrets" text NOT NULL, "secret_expiry" text, "content_type" varchar(255) COLLATE "C" NOT NULL, "hmac_digest" varchar(16) COLLATE "C" NOT NULL, "headers" text, "description" text NOT NULL, "rate_limit" double precision, "enabled" smallint NOT NULL, "paused" smallint NOT NULL, "disabled_reason" text, "failing_since" bigint, "failures" integer NOT NULL, "last_failure_at" bigint, "created_at" bigint NOT NULL, "updated_at" bigint NOT NULL, "extra" text, PRIMARY KEY ("id"));

CREATE INDEX IF NOT EXISTS "thorn_subscriptions_owner_id" ON "thorn_subscriptions" ("owner", "id");

CREATE TABLE IF NOT EXISTS "thorn_patterns" ("pattern" varchar(200) COLLATE "C" NOT NULL, "owner" varchar(255) COLLATE "C" NOT NULL, "subscription_id" varchar(120) COLLATE "C" NOT NULL, PRIMARY KEY ("pattern", "owner", "subscription_id"));

CREATE INDEX IF NOT EXISTS "thorn_patterns_pattern_subscription_id" ON "thorn_patterns" ("pattern", "subscription_id");

CREATE INDEX IF NOT EXISTS "thorn_patterns_subscription_id" ON "thorn_patterns" ("subscription_id");

CREATE TABLE IF NOT EXISTS "thorn_owners" ("id" bigint NOT NULL, "owner" varchar(255) COLLATE "C" NOT NULL, "ready_at" bigint, "tat" bigint, PRIMARY KEY ("id")) WITH (fillfactor = 50);

CREATE UNIQUE INDEX IF NOT EXISTS "thorn_owners_owner" ON "thorn_owners" ("owner");

CREATE INDEX IF NOT EXISTS "thorn_owners_ready_at" ON "thorn_owners" ("ready_at");

CREATE TABLE IF NOT EXISTS "thorn_recipients" ("id" bigint NOT NULL, "subscription_id" varchar(120) COLLATE "C" NOT NULL, "owner" varchar(255) COLLATE "C", "origin" varchar(270) COLLATE "C" NOT NULL, "ready_at" bigint, "paused" smallint NOT NULL, "blocked_until" bigint NOT NULL, "circuit" smallint NOT NULL, "probe_until" bigint, "tat" bigint, PRIMARY KEY ("id")) WITH (fillfactor = 50);

CREATE UNIQUE INDEX IF NOT EXISTS "thorn_recipients_subscription_id" ON "thorn_recipients" ("subscription_id");

CREATE INDEX IF NOT EXISTS "thorn_recipients_ready_at_id" ON "thorn_recipients" ("ready_at", "id");

CREATE TABLE IF NOT EXISTS "thorn_messages" ("id" bytea NOT NULL, "event" varchar(200) COLLATE "C" NOT NULL, "data" bytea NOT NULL, "at" bigint NOT NULL, "sender" varchar(255) COLLATE "C", "ordering_key" varchar(255) COLLATE "C", "expires_at" bigint, "extra" text, PRIMARY KEY ("id"));

CREATE INDEX IF NOT EXISTS "thorn_messages_sender_id" ON "thorn_messages" ("sender", "id");

CREATE TABLE IF NOT EXISTS "thorn_idempotency" ("digest" bytea NOT NULL, "message_id" bytea NOT NULL, "at" bigint NOT NULL, PRIMARY KEY ("digest"));

CREATE INDEX IF NOT EXISTS "thorn_idempotency_message_id" ON "thorn_idempotency" ("message_id");

CREATE TABLE IF NOT EXISTS "thorn_outbox" ("message_id" bytea NOT NULL, "route_at" bigint NOT NULL, "tries" smallint NOT NULL, "leased_until" bigint, "token" varchar(64) COLLATE "C", "after_recipient" varchar(120) COLLATE "C", "cancelled" smallint NOT NULL, PRIMARY KEY ("message_id")) WITH (fillfactor = 50);

CREATE INDEX IF NOT EXISTS "thorn_outbox_route_at_message_id" ON "thorn_outbox" ("route_at", "message_id");

CREATE TABLE IF NOT EXISTS "thorn_queue" ("id" bytea NOT NULL, "recipient" bigint NOT NULL, "due_at" bigint NOT NULL, "tries" integer NOT NULL, "leased_until" bigint, "token" varchar(64) COLLATE "C", "key_hash" bigint, "seq" bigint, PRIMARY KEY ("id")) WITH (fillfactor = 50);

CREATE INDEX IF NOT EXISTS "thorn_queue_recipient_due_at_id" ON "thorn_queue" ("recipient", "due_at", "id");

CREATE INDEX IF NOT EXISTS "thorn_queue_recipient_key_hash_seq" ON "thorn_queue" ("recipient", "key_hash", "seq");

CREATE TABLE IF NOT EXISTS "thorn_deliveries" ("id" bytea NOT NULL, "recipient" bigint NOT NULL, "state" smallint NOT NULL, "attempts" integer NOT NULL, "created_at" bigint NOT NULL, "finished_at" bigint, "reason" text, "target" text, PRIMARY KEY ("id"));

CREATE INDEX IF NOT EXISTS "thorn_deliveries_recipient_id" ON "thorn_deliveries" ("recipient", "id");

CREATE TABLE IF NOT EXISTS "thorn_attempts" ("delivery_id" bytea NOT NULL, "at" bigint NOT NULL, "number" integer NOT NULL, "duration" bigint NOT NULL, "status" smallint, "timed_out" smallint NOT NULL, "error" text, "headers" text, "body" bytea, PRIMARY KEY ("delivery_id", "at"));

CREATE INDEX IF NOT EXISTS "thorn_attempts_at" ON "thorn_attempts" USING brin ("at");

CREATE TABLE IF NOT EXISTS "thorn_ordering" ("recipient" bigint NOT NULL, "key_hash" bigint NOT NULL, "last" bigint NOT NULL, PRIMARY KEY ("recipient", "key_hash"));

CREATE TABLE IF NOT EXISTS "thorn_schema_version" ("version_num" varchar(32) COLLATE "C" NOT NULL, PRIMARY KEY ("version_num"));

INSERT INTO "thorn_schema_version" VALUES ('0001');

INSERT INTO thorn_subscriptions (id, version, owner, url, events, secrets, secret_expiry, content_type, hmac_digest, headers, description, rate_limit, enabled, paused, disabled_reason, failing_since, failures, last_failure_at, created_at, updated_at, extra) VALUES ('sub_01941f297c00e850baabbef200000000', 1, '42', 'http://127.0.0.1:39519/', '["article.*"]', '["whsec_b2YgdGVzdHMsIG5vdCBvZiBhbnkgcmVjaXBpZW50J3M="]', NULL, 'application/json', 'sha256', '{"X-Team": "blue"}', '', NULL, 1, 0, NULL, 1735689600000000, 1, 1735689600000000, 1735689600000000, 1735689600000000, NULL);

INSERT INTO thorn_patterns (pattern, owner, subscription_id) VALUES ('article.*', '42', 'sub_01941f297c00e850baabbef200000000');

INSERT INTO thorn_recipients (id, subscription_id, owner, origin, ready_at, paused, blocked_until, circuit, probe_until, tat) VALUES (4453164548087506517, 'sub_01941f297c00e850baabbef200000000', '42', 'http://127.0.0.1:39519', 1735689601000000, 0, 0, 0, NULL, NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES ('\x01941f297c00e850baabbef200000001', 'article.delivered', '\x7b227469746c65223a224772c3bcc39f65227d', 1735689600000000, '42', NULL, NULL, NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES ('\x01941f297c00e850baabbef200000002', 'article.failed', '\x7b227469746c65223a2269742773205c5c203130302025227d', 1735689600000000, NULL, NULL, NULL, '{"context": {"n": 1}}');

INSERT INTO thorn_messages (id, event, data, at, sender, ordering_key, expires_at, extra) VALUES ('\x01941f297c00e850baabbef200000003', 'article.unrouted', '\x7b227469746c65223a227468697264227d', 1735689600000000, NULL, NULL, NULL, NULL);

INSERT INTO thorn_outbox (message_id, route_at, tries, leased_until, token, after_recipient, cancelled) VALUES ('\x01941f297c00e850baabbef200000003', 0, 0, NULL, NULL, NULL, 0);

INSERT INTO thorn_queue (id, recipient, due_at, tries, leased_until, token, key_hash, seq) VALUES ('\x01941f297c00e850baabbef2000000023dccd190071e6655', 4453164548087506517, 1735689601000000, 1, NULL, NULL, NULL, NULL);

INSERT INTO thorn_deliveries (id, recipient, state, attempts, created_at, finished_at, reason, target) VALUES ('\x01941f297c00e850baabbef2000000013dccd190071e6655', 4453164548087506517, 1, 1, 1735689600000000, 1735689600000000, NULL, NULL);

INSERT INTO thorn_deliveries (id, recipient, state, attempts, created_at, finished_at, reason, target) VALUES ('\x01941f297c00e850baabbef2000000023dccd190071e6655', 4453164548087506517, 0, 1, 1735689600000000, NULL, 'status 500', NULL);

INSERT INTO thorn_attempts (delivery_id, at, number, duration, status, timed_out, error, headers, body) VALUES ('\x01941f297c00e850baabbef2000000013dccd190071e6655', 1735689600000000, 1, 4572, 200, 0, NULL, '{"content-length": "0"}', NULL);

INSERT INTO thorn_attempts (delivery_id, at, number, duration, status, timed_out, error, headers, body) VALUES ('\x01941f297c00e850baabbef2000000023dccd190071e6655', 1735689600000000, 1, 1388, 500, 0, NULL, '{"content-length": "0"}', NULL);

