-- Times are unix milliseconds (UTC); ids and JSON are text. What belongs to a mesh says so in mesh_id, and references take both
-- columns along: the database itself refuses one that leads from a mesh into another.

create table mesh (
    id text primary key,
    slug text not null,
    name text not null,
    owner_pubkey text not null,
    owner_member_id text not null,
    self_editable text,
    created_at integer not null,
    archived_at integer
);
create unique index mesh_slug on mesh (slug) where archived_at is null;

-- The counters of a mesh. A batch reads them once and writes them once; on PostgreSQL the row is also the mesh's lock.
create table mesh_head (
    mesh_id text primary key references mesh (id) on delete cascade,
    message_seq integer not null default 0,
    expired_seq integer not null default 0,
    audit_seq integer not null default 0,
    audit_hash text not null default 'genesis',
    audit_hash2 text not null default ''
);

create table member (
    mesh_id text not null references mesh (id) on delete cascade,
    id text not null,
    peer_pubkey text not null,
    display_name text not null,
    role text not null check (role in ('admin', 'member')),
    role_tag text,
    default_groups text not null default '[]',
    message_mode text not null default 'push',
    joined_at integer not null,
    last_seen_at integer,
    revoked_at integer,
    primary key (id, mesh_id),
    unique (mesh_id, peer_pubkey)
);

create table invite (
    mesh_id text not null references mesh (id) on delete cascade,
    id text not null,
    token_hash text not null unique,
    signature text not null,
    role text not null check (role in ('admin', 'member')),
    max_uses integer not null,
    used_count integer not null default 0,
    expires_at integer not null,
    created_by_member_id text not null,
    created_at integer not null,
    revoked_at integer,
    primary key (mesh_id, id),
    unique (mesh_id, signature),
    check (used_count <= max_uses),
    foreign key (mesh_id, created_by_member_id) references member (mesh_id, id)
);

-- A session key has one owner; proven_at is set once somebody has signed with the key itself.
create table session (
    mesh_id text not null,
    session_pubkey text not null,
    member_id text not null,
    proven_at integer,
    last_seen_at integer not null,
    primary key (mesh_id, session_pubkey),
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);
create index session_last_seen on session (last_seen_at);

-- Signatures of accepted handshakes, remembered until a replay would fail on its timestamp anyway.
create table handshake (
    mesh_id text not null references mesh (id) on delete cascade,
    signature text not null,
    accepted_at integer not null,
    primary key (mesh_id, signature)
);
create index handshake_accepted on handshake (accepted_at);

-- One row per start of a broker. A claim names an incarnation; it holds only while that incarnation's heart beats.
create table node (
    incarnation integer primary key autoincrement,
    name text not null,
    started_at integer not null,
    heartbeat_at integer not null
);

create table message (
    mesh_id text not null references mesh (id) on delete cascade,
    seq integer not null,
    id text not null,
    sender_member_id text not null,
    sender_pubkey text not null,
    sender_name text not null,
    target_spec text not null,
    priority text not null check (priority in ('now', 'next', 'low')),
    nonce text not null,
    ciphertext text not null check (length(ciphertext) <= 1048576),
    ext text,
    client_message_id text,
    request_fingerprint text,
    created_at integer not null,
    primary key (mesh_id, seq),
    foreign key (mesh_id, sender_member_id) references member (mesh_id, id)
);
create unique index message_dedupe on message (client_message_id, sender_member_id, mesh_id)
    where client_message_id is not null;

-- One row per message and recipient: a member's id, or a session's key. `claimed` is not a state but a claim that holds.
create table delivery (
    id integer primary key autoincrement,
    mesh_id text not null,
    message_seq integer not null,
    recipient text not null,
    member_id text not null,
    priority text not null,
    size_bytes integer not null,
    state text not null default 'queued' check (state in ('queued', 'delivered', 'expired', 'revoked')),
    claim_incarnation integer,
    claim_connection text,
    claim_until integer,
    ended_at integer,
    unique (mesh_id, message_seq, recipient),
    foreign key (mesh_id, message_seq) references message (mesh_id, seq) on delete cascade,
    foreign key (mesh_id, member_id) references member (mesh_id, id)
);
create index delivery_queued on delivery (mesh_id, recipient, message_seq) where state = 'queued';

-- What is queued for a recipient, kept with each batch, so that a limit costs no counting.
create table backlog (
    mesh_id text not null references mesh (id) on delete cascade,
    recipient text not null,
    queued_rows integer not null,
    queued_bytes integer not null,
    primary key (mesh_id, recipient)
);

-- The hash chain over what happened, metadata only; written in the transaction of its event.
create table audit_log (
    mesh_id text not null references mesh (id) on delete cascade,
    seq integer not null,
    event_type text not null,
    actor_member_id text,
    actor_display_name text,
    payload text not null,
    prev_hash text not null,
    hash text not null,
    hash2 text not null,
    created_at integer not null,
    primary key (mesh_id, seq),
    unique (mesh_id, prev_hash)
);
