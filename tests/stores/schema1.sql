-- A store of schema 1, as the release before schema 2 wrote it (stores.sqlite.replace_policy, three times).
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE customer (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, ceiling TEXT, credential TEXT, origid TEXT
) WITHOUT ROWID;
INSERT INTO "customer" VALUES('acme','Acme Contact Centre','verified','B','second','11111111-2222-4333-8444-555555555555');
INSERT INTO "customer" VALUES('beta','Bèta','suspended',NULL,NULL,NULL);
CREATE TABLE gateway (id TEXT PRIMARY KEY, name TEXT NOT NULL, credential TEXT) WITHOUT ROWID;
INSERT INTO "gateway" VALUES('intl','International gateway','fourth');
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "meta" VALUES('digests','{"/etc/shaken/shaken.yaml": "ab12"}');
INSERT INTO "meta" VALUES('network_bits','[[4, 32], [6, 32], [4, 24]]');
INSERT INTO "meta" VALUES('policy_version','3');
INSERT INTO "meta" VALUES('prefix_lengths','[11, 9]');
INSERT INTO "meta" VALUES('settings','{"signing": {"mode": "off"}}');
CREATE TABLE number_key (key TEXT, id INTEGER REFERENCES number_right (id), PRIMARY KEY (key, id)) WITHOUT ROWID;
INSERT INTO "number_key" VALUES('11:12155551195',2);
INSERT INTO "number_key" VALUES('11:12155551196',2);
INSERT INTO "number_key" VALUES('11:12155551197',2);
INSERT INTO "number_key" VALUES('11:12155551198',2);
INSERT INTO "number_key" VALUES('11:12155551199',2);
INSERT INTO "number_key" VALUES('11:121555512',2);
INSERT INTO "number_key" VALUES('11:12155551212',0);
INSERT INTO "number_key" VALUES('11:12155551212',3);
INSERT INTO "number_key" VALUES('11:121555513',1);
INSERT INTO "number_key" VALUES('11:12155551300',2);
INSERT INTO "number_key" VALUES('11:12155551301',2);
CREATE TABLE number_right (
    id INTEGER PRIMARY KEY, customer TEXT NOT NULL REFERENCES customer (id),
    first TEXT NOT NULL, last TEXT NOT NULL, basis TEXT NOT NULL,
    document TEXT, use_case TEXT, valid_from REAL, valid_until REAL
);
INSERT INTO "number_right" VALUES(0,'acme','12155551212','12155551212','letter','LOA-2026-113','reminders',NULL,1814313600.0);
INSERT INTO "number_right" VALUES(1,'acme','12155551300','12155551399','letter','LOA-2026-113','reminders',NULL,1814313600.0);
INSERT INTO "number_right" VALUES(2,'acme','12155551195','12155551301','assigned',NULL,NULL,NULL,NULL);
INSERT INTO "number_right" VALUES(3,'beta','12155551212','12155551212','customer_word',NULL,NULL,1.5,NULL);
CREATE TABLE source_address (key TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "source_address" VALUES('4/24/c6336400','trunk','acme-main');
INSERT INTO "source_address" VALUES('4/32/cb007107','gateway','intl');
INSERT INTO "source_address" VALUES('6/32/20010db8000000000000000000000000','trunk','acme-main');
CREATE TABLE source_user (name TEXT PRIMARY KEY, trunk TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "source_user" VALUES('alice','beta-main');
CREATE TABLE trunk (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL REFERENCES customer (id), credential TEXT
) WITHOUT ROWID;
INSERT INTO "trunk" VALUES('acme-main','acme','third');
INSERT INTO "trunk" VALUES('beta-main','beta',NULL);
COMMIT;
