-- A conversation of a mesh. Names of archived topics stay taken. Without `encrypted_key_pubkey` nobody has made a key yet, and what is
-- written is plaintext. `head_seq` is the number of the last message, `head_message_seq` its number in the mesh.
create table topic (
    mesh_id text not null references mesh (id) on delete cascade,
    id text not null,
    name text not null,
    description text,
    visibility text not null default 'public' check (visibility in ('public', 'private', 'dm')),
    encrypted_key_pubkey text,
    created_by_member_id text,
    created_at bigint not null,
    archived_at bigint,
    head_seq bigint not null default 0,
    head_message_seq bigint not null default 0,
    primary key (mesh_id, id),
    unique (mesh_id, name)
);

-- Who is in a topic, and how far its messages were delivered: everything up to `delivered_seq` is acknowledged, or not for this member's
-- connections. What comes after it is free, or with the connection that has the claim and was handed nothing beyond `claimed_seq`. Messages before `joined_seq` are history.
create table topic_member (
    id bigint generated always as identity primary key,
    mesh_id text not null,
    topic_id text not null,
    member_id text not null,
    role text not null default 'member' check (role in ('lead', 'member', 'observer')),
    joined_at bigint not null,
    joined_seq bigint not null,
    last_read_at bigint,
    delivered_seq bigint not null,
    claim_incarnation bigint,
    claim_connection text,
    claim_until bigint,
    claimed_seq bigint not null default 0,
    unique (mesh_id, topic_id, member_id),
    foreign key (mesh_id, topic_id) references topic (mesh_id, id) on delete cascade,
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);
create index topic_member_of on topic_member (mesh_id, member_id);

-- The topic's key, locked for one member. A copy that its member rejected is as if it were not there, until another one is stored.
create table topic_member_key (
    mesh_id text not null,
    id text not null,
    topic_id text not null,
    member_id text not null,
    encrypted_key text not null,
    nonce text not null,
    sealed_by_member_id text,
    created_at bigint not null,
    rotated_at bigint,
    rejected_at bigint,
    primary key (mesh_id, topic_id, member_id),
    foreign key (mesh_id, topic_id) references topic (mesh_id, id) on delete cascade,
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);

-- Kept until its topic is deleted. `seq` is its number in the topic, without gaps; `message_seq` in the mesh, and its id begins with
-- that one, like a direct message's.
create table topic_message (
    mesh_id text not null,
    topic_id text not null,
    seq bigint not null,
    message_seq bigint not null,
    id text not null,
    sender_member_id text not null,
    sender_pubkey text not null,
    sender_name text not null,
    priority text not null check (priority in ('now', 'next', 'low')),
    nonce text not null,
    body_version bigint not null check (body_version in (1, 2)),
    -- 1 for what was written without the topic's key into an encrypted topic.
    plaintext bigint not null default 0,
    reply_to_id text,
    mentions text,
    client_message_id text,
    request_fingerprint text,
    created_at bigint not null,
    -- Last, so that what comes before them is read without them.
    ext text,
    ciphertext text not null check (octet_length(ciphertext) <= 1048576),
    primary key (mesh_id, topic_id, seq),
    unique (mesh_id, message_seq),
    foreign key (mesh_id, topic_id) references topic (mesh_id, id) on delete cascade,
    foreign key (mesh_id, sender_member_id) references member (mesh_id, id)
);
create unique index topic_message_dedupe on topic_message (client_message_id, sender_member_id, mesh_id)
    where client_message_id is not null;

create table notification (
    mesh_id text not null,
    id text not null,
    topic_id text not null,
    message_seq bigint not null,
    recipient_member_id text not null,
    sender_member_id text not null,
    kind text not null default 'mention',
    created_at bigint not null,
    read_at bigint,
    primary key (mesh_id, id),
    unique (mesh_id, message_seq, recipient_member_id),
    foreign key (mesh_id, message_seq) references topic_message (mesh_id, message_seq) on delete cascade,
    foreign key (mesh_id, recipient_member_id) references member (mesh_id, id) on delete cascade
);
create index notification_of on notification (mesh_id, recipient_member_id, created_at);
create index notification_unread on notification (mesh_id, recipient_member_id, created_at) where read_at is null;
create index notification_read on notification (created_at) where read_at is not null;

-- What the messages of a mesh's topics take, with their notifications.
alter table mesh_head add column topic_bytes bigint not null default 0;

-- A key to the REST interface. Of the secret only its SHA-256 is kept; `topic_scopes` is null for all topics, else a JSON array of names.
create table api_key (
    mesh_id text not null references mesh (id) on delete cascade,
    id text not null,
    label text not null,
    secret_prefix text not null,
    secret_hash text not null,
    capabilities text not null,
    topic_scopes text,
    issued_by_member_id text not null,
    created_at bigint not null,
    last_used_at bigint,
    expires_at bigint,
    revoked_at bigint,
    primary key (mesh_id, id),
    unique (secret_hash),
    foreign key (mesh_id, issued_by_member_id) references member (mesh_id, id) on delete cascade
);
create index api_key_prefix on api_key (secret_prefix);
create index api_key_issuer on api_key (mesh_id, issued_by_member_id, created_at);
create index api_key_age on api_key (mesh_id, created_at);
create index api_key_used on api_key (mesh_id, last_used_at);

-- Every mesh has the topic `general`, and every member is in it.
insert into topic (mesh_id, id, name, description, created_by_member_id, created_at)
    select id, replace(gen_random_uuid()::text, '-', ''), 'general', 'Everybody in the mesh', owner_member_id, created_at from mesh;
insert into topic_member (mesh_id, topic_id, member_id, role, joined_at, joined_seq, delivered_seq)
    select m.mesh_id, t.id, m.id, case when t.created_by_member_id = m.id then 'lead' else 'member' end, m.joined_at, 1, 0
    from member m join topic t on t.mesh_id = m.mesh_id where m.revoked_at is null;

-- Who is mentioned: names in lower case.
create index member_name on member (mesh_id, lower(display_name));
