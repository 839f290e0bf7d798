-- What is remembered of a member between its connections. `groups` is null until it said which ones: then the member's default
-- groups hold.
create table peer_state (
    mesh_id text not null,
    member_id text not null,
    groups text,
    profile text not null default '{}',
    visible integer not null default 1,
    last_summary text,
    last_display_name text,
    cumulative_stats text not null default '{}',
    last_seen_at integer,
    updated_at integer not null,
    primary key (mesh_id, member_id),
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);

-- The groups that hold for each member, one row each, in lower case: what an audience is read from.
create table member_group (
    mesh_id text not null,
    name text not null,
    member_id text not null,
    primary key (mesh_id, name, member_id),
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);
create index member_group_of on member_group (mesh_id, member_id);

-- What a member lets the owner of a key do: a JSON array of words. Without a row the default holds.
create table member_grant (
    mesh_id text not null,
    member_id text not null,
    sender_pubkey text not null,
    capabilities text not null,
    primary key (mesh_id, member_id, sender_pubkey),
    foreign key (mesh_id, member_id) references member (mesh_id, id) on delete cascade
);

-- What is queued in the whole mesh, kept with each batch like a recipient's backlog.
alter table mesh_head add column queued_rows integer not null default 0;
alter table mesh_head add column queued_bytes integer not null default 0;
update mesh_head set
    queued_rows = coalesce((select sum(b.queued_rows) from backlog b where b.mesh_id = mesh_head.mesh_id), 0),
    queued_bytes = coalesce((select sum(b.queued_bytes) from backlog b where b.mesh_id = mesh_head.mesh_id), 0);

-- Where a mesh's audit log stood at some time, signed by the broker's audit key.
create table audit_checkpoint (
    mesh_id text not null references mesh (id) on delete cascade,
    seq integer not null,
    hash text not null,
    hash2 text not null,
    signed_at integer not null,
    pubkey text not null,
    signature text not null,
    primary key (mesh_id, seq)
);

-- Without `unique (mesh_id, prev_hash)`: an index over random hashes costs five times what the entry costs. That a chain does not fork
-- follows from the primary key, since each entry is made from the head in the transaction that moves the head on.
create table audit_log_2 (
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
    primary key (mesh_id, seq)
);
insert into audit_log_2 select mesh_id, seq, event_type, actor_member_id, actor_display_name, payload, prev_hash, hash, hash2,
    created_at from audit_log;
drop table audit_log;
alter table audit_log_2 rename to audit_log;

-- 1 from a member's removal until nothing of its mail is queued any more.
alter table member add column revoking integer not null default 0;
create index member_revoking on member (mesh_id, id) where revoking = 1;
create index member_revoked on member (revoked_at) where revoked_at is not null;
