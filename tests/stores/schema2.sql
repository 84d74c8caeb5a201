-- Schema 2, dumped from a store that release 0.1.0 of commit ea970ac wrote by its own code: settings, a customer
-- with a trunk and a right, and a number that was taken back.
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE change (
    version INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, what TEXT NOT NULL,
    applied INTEGER NOT NULL
);
INSERT INTO "change" VALUES(1,1795000000.0,'file','put in force','file /etc/shaken/policy.yaml: settings',1);
INSERT INTO "change" VALUES(2,1795000060.0,'anna','contract','customer acme',0);
INSERT INTO "change" VALUES(3,1795000120.0,'bob','given back','number of own',0);
CREATE TABLE link (key TEXT, kind TEXT, id TEXT, PRIMARY KEY (key, kind, id)) WITHOUT ROWID;
INSERT INTO "link" VALUES('customer/acme','right','own');
INSERT INTO "link" VALUES('address/4/24/c6336400','trunk','acme-main');
INSERT INTO "link" VALUES('customer/acme','trunk','acme-main');
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "meta" VALUES('applied_version','0');
INSERT INTO "meta" VALUES('digests','{"/etc/shaken/shaken.yaml": "ab12"}');
INSERT INTO "meta" VALUES('oldest_version','0');
INSERT INTO "meta" VALUES('policy_version','3');
INSERT INTO "meta" VALUES('settings','{"signing": {"mode": "off"}}');
INSERT INTO "meta" VALUES('settings_version','1');
CREATE TABLE number (
    key INTEGER, owner INTEGER, span INTEGER, since INTEGER, until INTEGER, PRIMARY KEY (key, owner, span, since)
) WITHOUT ROWID;
INSERT INTO "number" VALUES(185000000121555512,1,1,2,NULL);
INSERT INTO "number" VALUES(187000012155551300,1,0,2,3);
CREATE TABLE owner (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, UNIQUE (kind, id));
INSERT INTO "owner" VALUES(1,'right','own');
CREATE TABLE record (
    kind TEXT, id TEXT, since INTEGER, until INTEGER, body TEXT NOT NULL, PRIMARY KEY (kind, id, since)
) WITHOUT ROWID;
INSERT INTO "record" VALUES('customer','acme',2,NULL,'{"id":"acme","name":"Acme","state":"verified"}');
INSERT INTO "record" VALUES('right','own',2,NULL,'{"basis":"assigned","customer":"acme","id":"own"}');
INSERT INTO "record" VALUES('trunk','acme-main',2,NULL,'{"addresses":["198.51.100.0/24"],"customer":"acme","id":"acme-main"}');
CREATE TABLE shape (kind TEXT, value INTEGER, PRIMARY KEY (kind, value)) WITHOUT ROWID;
INSERT INTO "shape" VALUES('address',4024);
INSERT INTO "shape" VALUES('number',185);
INSERT INTO "shape" VALUES('number',187);
CREATE TABLE span (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    since INTEGER NOT NULL, until INTEGER
);
INSERT INTO "span" VALUES(1,1,12155551200,12155551299,2,NULL);
CREATE INDEX span_owner ON span (owner, first, last);
CREATE INDEX number_owner ON number (owner, key, since, until) WHERE span = 0;
CREATE INDEX link_owner ON link (kind, id);
COMMIT;
