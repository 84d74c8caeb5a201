-- A state file of schema 1, as the release before schema 2 made it.
BEGIN TRANSACTION;
CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, offence INTEGER, at REAL NOT NULL,
        what TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL
    );
CREATE TABLE evidence (
        offence INTEGER NOT NULL REFERENCES offence (id), at REAL NOT NULL, call TEXT NOT NULL, body TEXT NOT NULL
    );
INSERT INTO "evidence" VALUES(1,990.0,'a:0','{}');
CREATE TABLE message (
        id TEXT PRIMARY KEY, offence INTEGER NOT NULL REFERENCES offence (id), kind TEXT NOT NULL,
        due_at REAL NOT NULL, body BLOB, tries INTEGER NOT NULL DEFAULT 0, failure TEXT, done_at REAL
    ) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "meta" VALUES('id','0b7f3c52-6f0e-4a35-9c3e-1f6f1f3f6a01');
CREATE TABLE number (
        offence INTEGER NOT NULL REFERENCES offence (id), number TEXT NOT NULL, customer TEXT NOT NULL,
        begins REAL NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (offence, number)
    ) WITHOUT ROWID;
INSERT INTO "number" VALUES(1,'13125559900','acme',990.0,990.0,990.0,1);
CREATE TABLE observed (
        customer TEXT NOT NULL, number TEXT NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL,
        calls INTEGER NOT NULL, PRIMARY KEY (customer, number)
    ) WITHOUT ROWID;
CREATE TABLE offence (
        id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, second INTEGER NOT NULL, stage TEXT NOT NULL,
        opened_at REAL NOT NULL, delivered_at REAL, closed_at REAL,
        calls INTEGER NOT NULL DEFAULT 0, numbers INTEGER NOT NULL DEFAULT 0, last_at REAL NOT NULL
    );
INSERT INTO "offence" VALUES(1,'acme',0,'settled',990.0,NULL,2000.0,1,1,990.0);
CREATE TABLE standing (
        id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, state TEXT NOT NULL,
        at REAL NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, offence INTEGER
    );
INSERT INTO "standing" VALUES(1,'acme','suspended',1000.0,'Ann','calls',1);
INSERT INTO "standing" VALUES(2,'beta','suspended',1000.0,'Ann','x',NULL);
INSERT INTO "standing" VALUES(3,'acme','reinstated',2000.0,'Bob','over',NULL);
INSERT INTO "standing" VALUES(4,'beta','reinstated',1001.0,'Ann','y',NULL);
INSERT INTO "standing" VALUES(5,'acme','suspended',900.0,'Cid','again',NULL);
CREATE INDEX standing_of ON standing (customer, id);
CREATE TRIGGER standing_stays BEFORE UPDATE ON standing
        BEGIN SELECT RAISE(ABORT, 'what was said of a customer is kept'); END;
CREATE TRIGGER standing_is_kept BEFORE DELETE ON standing
        BEGIN SELECT RAISE(ABORT, 'what was said of a customer is kept'); END;
CREATE INDEX offence_of ON offence (customer, id);
CREATE INDEX number_of ON number (customer, number);
CREATE INDEX evidence_of ON evidence (offence);
CREATE INDEX event_of ON event (offence);
CREATE INDEX message_due ON message (due_at) WHERE done_at IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('offence',1);
INSERT INTO "sqlite_sequence" VALUES('standing',5);
COMMIT;
PRAGMA user_version = 1;
