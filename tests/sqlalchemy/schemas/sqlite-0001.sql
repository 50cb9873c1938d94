CREATE TABLE thorn_schema_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT thorn_schema_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE thorn_subscriptions (
    id VARCHAR(120) NOT NULL,
    owner VARCHAR(255),
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    secrets TEXT NOT NULL,
    secret_expiry TEXT,
    content_type VARCHAR(255) NOT NULL,
    hmac_digest VARCHAR(16) NOT NULL,
    headers TEXT,
    description TEXT NOT NULL,
    rate_limit DOUBLE,
    enabled BOOLEAN NOT NULL,
    disabled_reason TEXT,
    failing_since BIGINT,
    failures INTEGER NOT NULL,
    last_failure_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX thorn_subscriptions_owner ON thorn_subscriptions (owner, id);

CREATE TABLE thorn_subscription_patterns (
    pattern VARCHAR(200) NOT NULL,
    owner VARCHAR(255) NOT NULL,
    subscription_id VARCHAR(120) NOT NULL,
    PRIMARY KEY (pattern, owner, subscription_id)
);

CREATE INDEX thorn_subscription_patterns_any_owner ON thorn_subscription_patterns (pattern, subscription_id);

CREATE INDEX thorn_subscription_patterns_subscription ON thorn_subscription_patterns (subscription_id);

CREATE TABLE thorn_messages (
    id VARCHAR(64) NOT NULL,
    event VARCHAR(200) NOT NULL,
    data BLOB NOT NULL,
    at BIGINT NOT NULL,
    sender VARCHAR(255),
    extra TEXT,
    route_at BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX thorn_messages_route ON thorn_messages (route_at, at, id);

CREATE TABLE thorn_deliveries (
    id VARCHAR(160) NOT NULL,
    message_id VARCHAR(64) NOT NULL,
    subscription_id VARCHAR(120) NOT NULL,
    event VARCHAR(200) NOT NULL,
    recipient VARCHAR(260) NOT NULL,
    state VARCHAR(10) NOT NULL,
    attempt_count INTEGER NOT NULL,
    attempts_before INTEGER NOT NULL,
    due_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    settled_at BIGINT,
    reason TEXT,
    target TEXT,
    ready_at BIGINT,
    token VARCHAR(64),
    leased_until BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX thorn_deliveries_ready ON thorn_deliveries (recipient, ready_at, id) WHERE ready_at IS NOT NULL;

CREATE INDEX thorn_deliveries_lease ON thorn_deliveries (leased_until, id) WHERE leased_until IS NOT NULL;

CREATE INDEX thorn_deliveries_subscription ON thorn_deliveries (subscription_id, created_at, id);

CREATE INDEX thorn_deliveries_created ON thorn_deliveries (created_at, id);

CREATE TABLE thorn_attempts (
    id VARCHAR(64) NOT NULL,
    delivery_id VARCHAR(160) NOT NULL,
    recipient VARCHAR(260) NOT NULL,
    number INTEGER NOT NULL,
    at BIGINT NOT NULL,
    duration DOUBLE NOT NULL,
    status SMALLINT,
    headers TEXT,
    body BLOB,
    error TEXT,
    timed_out BOOLEAN NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX thorn_attempts_delivery ON thorn_attempts (delivery_id, id);

CREATE INDEX thorn_attempts_at ON thorn_attempts (at);

CREATE TABLE thorn_recipients (
    recipient VARCHAR(260) NOT NULL,
    ready_at BIGINT,
    paused_until BIGINT NOT NULL,
    PRIMARY KEY (recipient)
);

CREATE INDEX thorn_recipients_ready ON thorn_recipients (ready_at, recipient);

INSERT INTO thorn_schema_version (version_num) VALUES ('0001') RETURNING version_num;

INSERT INTO thorn_subscriptions (id, owner, url, events, secrets, secret_expiry, content_type, hmac_digest, headers, description, rate_limit, enabled, disabled_reason, failing_since, failures, last_failure_at, created_at, updated_at) VALUES ('sub_01941f297c0043d4c79c657200000000', '42', 'http://127.0.0.1:33103/', '["article.*"]', '["whsec_b2YgdGVzdHMsIG5vdCBvZiBhbnkgcmVjaXBpZW50J3M="]', NULL, 'application/json', 'sha256', '{"X-Team": "blue"}', '', NULL, 1, NULL, 1735689600000000, 1, 1735689600000000, 1735689600000000, 1735689600000000);

INSERT INTO thorn_subscription_patterns (pattern, owner, subscription_id) VALUES ('article.*', '42', 'sub_01941f297c0043d4c79c657200000000');

INSERT INTO thorn_messages (id, event, data, at, sender, extra, route_at) VALUES ('msg_01941f297c0043d4c79c657200000001', 'article.delivered', X'7b227469746c65223a224772c3bcc39f65227d', 1735689600000000, '42', NULL, NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, extra, route_at) VALUES ('msg_01941f297c0043d4c79c657200000003', 'article.failed', X'7b227469746c65223a2269742773205c5c203130302025227d', 1735689600000000, NULL, '{"context": {"n": 1}}', NULL);

INSERT INTO thorn_messages (id, event, data, at, sender, extra, route_at) VALUES ('msg_01941f297c0043d4c79c657200000005', 'article.unrouted', X'7b227469746c65223a227468697264227d', 1735689600000000, NULL, NULL, 0);

INSERT INTO thorn_deliveries (id, message_id, subscription_id, event, recipient, state, attempt_count, attempts_before, due_at, created_at, settled_at, reason, target, ready_at, token, leased_until) VALUES ('dlv_01941f297c0043d4c79c657200000001_01941f297c0043d4c79c657200000000', 'msg_01941f297c0043d4c79c657200000001', 'sub_01941f297c0043d4c79c657200000000', 'article.delivered', '127.0.0.1:33103', 'delivered', 1, 0, 1735689600000000, 1735689600000000, 1735689600000000, NULL, NULL, NULL, NULL, NULL);

INSERT INTO thorn_deliveries (id, message_id, subscription_id, event, recipient, state, attempt_count, attempts_before, due_at, created_at, settled_at, reason, target, ready_at, token, leased_until) VALUES ('dlv_01941f297c0043d4c79c657200000003_01941f297c0043d4c79c657200000000', 'msg_01941f297c0043d4c79c657200000003', 'sub_01941f297c0043d4c79c657200000000', 'article.failed', '127.0.0.1:33103', 'pending', 1, 0, 1735689601000000, 1735689600000000, NULL, 'status 500', NULL, 1735689601000000, NULL, NULL);

INSERT INTO thorn_attempts (id, delivery_id, recipient, number, at, duration, status, headers, body, error, timed_out) VALUES ('att_01941f297c0043d4c79c657200000002', 'dlv_01941f297c0043d4c79c657200000001_01941f297c0043d4c79c657200000000', '127.0.0.1:33103', 1, 1735689600000000, 0.003333218999841847, 200, '{"content-length": "0"}', NULL, NULL, 0);

INSERT INTO thorn_attempts (id, delivery_id, recipient, number, at, duration, status, headers, body, error, timed_out) VALUES ('att_01941f297c0043d4c79c657200000004', 'dlv_01941f297c0043d4c79c657200000003_01941f297c0043d4c79c657200000000', '127.0.0.1:33103', 1, 1735689600000000, 0.0014105449999988195, 500, '{"content-length": "0"}', NULL, NULL, 0);

INSERT INTO thorn_recipients (recipient, ready_at, paused_until) VALUES ('127.0.0.1:33103', 1735689601000000, 0);

