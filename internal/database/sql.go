package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pgxstdlib "github.com/jackc/pgx/v5/stdlib"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A server is the source that is a database on a server: one transaction on one
// connection, which sees everything in the state of its first statement.
type server struct {
	pool    *sql.DB
	conn    *sql.Conn
	tx      *sql.Tx         // on conn
	ctx     context.Context // of the transaction
	end     context.CancelFunc
	timeout time.Duration
	dialect dialect
	tables  []string   // that there are
	mu      sync.Mutex // one statement at a time
}

// A dialect is what PostgreSQL and MySQL write differently.
type dialect struct{ quote, schema, parameter string }

var (
	postgresDialect = dialect{quote: `"`, schema: "ANY (current_schemas(false))", parameter: "$1"}
	mysqlDialect    = dialect{quote: "`", schema: "DATABASE()", parameter: "?"}
)

func (d dialect) name(table string) string {
	return d.quote + strings.ReplaceAll(table, d.quote, d.quote+d.quote) + d.quote
}

// openServer begins the transaction.
func openServer(ctx context.Context, cfg *db.Config, how Reading) (source, error) {
	s := &server{timeout: how.Timeout, dialect: postgresDialect}
	var err error
	if strings.EqualFold(cfg.Type, nosql.MySQLDriver) {
		s.dialect = mysqlDialect
		if how.Quiet {
			muteMySQL()
		}
		s.pool, err = openMySQL(cfg)
	} else {
		s.pool, err = openPostgres(cfg)
	}
	if err != nil {
		return nil, errSource
	}
	s.ctx, s.end = context.WithCancel(ctx)
	if err = ping(ctx, s.pool, how.Timeout); err == nil {
		err = s.do(ctx, s.begin)
	}
	if err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) begin(ctx context.Context, w *watch) (err error) {
	w.begin()
	if s.conn, err = s.pool.Conn(s.ctx); err != nil {
		return err
	}
	if s.tx, err = s.conn.BeginTx(s.ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}); err != nil {
		return err
	}
	err = s.query(ctx, w, func(rows *sql.Rows) error {
		var table string
		err := rows.Scan(&table)
		s.tables = append(s.tables, table)
		return err
	}, "SELECT table_name FROM information_schema.tables WHERE table_schema = "+s.dialect.schema)
	if err != nil || !slices.Contains(s.tables, certsTable) {
		return err
	}
	// MySQL's transaction sees the state of the first statement about its own tables.
	return s.query(ctx, w, func(*sql.Rows) error { return nil }, "SELECT 1 FROM "+certsTable+" LIMIT 1")
}

// close leaves the rollback to the background: the server may not answer.
func (s *server) close() error {
	s.end()
	return s.pool.Close()
}

// A watch ends the connection when the server makes no progress.
type watch struct {
	timer   *time.Timer
	timeout time.Duration
}

func (w *watch) begin() { w.timer.Reset(w.timeout) } // to wait for the server
func (w *watch) end()   { w.timer.Stop() }

// do has a step use the connection. After an error the connection may have ended.
func (s *server) do(ctx context.Context, step func(context.Context, *watch) error) error {
	if !s.mu.TryLock() {
		return errServerBusy
	}
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watch{timeout: s.timeout, timer: time.AfterFunc(time.Hour, func() {
		cancel(errNoProgress)
		s.end()
	})}
	err := step(ctx, w)
	w.end()
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errNoProgress):
		return problem.New("the CA's database server did not answer within %s", s.timeout).
			Hint("check the server; --timeout gives it longer")
	case ctx.Err() != nil:
		return problem.ErrInterrupted
	}
	return problem.Wrap(err, "reading the CA's database")
}

var (
	errNoProgress = errors.New("no progress")
	errServerBusy = problem.New("the CA's database server is still answering another request")
)

// query calls fn for each row of the answer, as it arrives. An error of fn ends
// the transaction: what is left of the answer is not waited for.
func (s *server) query(ctx context.Context, w *watch, fn func(*sql.Rows) error, statement string, args ...any) error {
	w.begin()
	rows, err := s.tx.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		w.end() // fn may take its time
		if err := fn(rows); err != nil {
			s.end()
			return err
		}
		w.begin()
	}
	return rows.Err()
}

// bounded selects a value of a table, or NULL if it has more than maxValue.
func bounded(column string) string {
	return fmt.Sprintf("CASE WHEN octet_length(%[1]s) <= %[2]d THEN %[1]s END", column, maxValue)
}

// each joins the tables on the server. Databases of step-ca before 0.20 have no
// x509_certs_data.
func (s *server) each(ctx context.Context, fn func(*row) error) error {
	if !slices.Contains(s.tables, certsTable) {
		return nil
	}
	revoked, data, joins := "0 = 1", "NULL", ""
	if slices.Contains(s.tables, revokedTable) {
		revoked, joins = "r.nkey IS NOT NULL", " LEFT JOIN "+revokedTable+" r ON r.nkey = c.nkey"
	}
	if slices.Contains(s.tables, certsDataTable) {
		data, joins = bounded("d.nvalue"), joins+" LEFT JOIN "+certsDataTable+" d ON d.nkey = c.nkey"
	}
	statement := "SELECT c.nkey, " + bounded("c.nvalue") + ", " + revoked + ", " + data + " FROM " + certsTable + " c" + joins
	return s.do(ctx, func(ctx context.Context, w *watch) error {
		if s.dialect == postgresDialect {
			return s.stream(ctx, w, statement, fn)
		}
		var key, der, data sql.RawBytes
		var isRevoked bool
		return s.query(ctx, w, func(rows *sql.Rows) error {
			if err := rows.Scan(&key, &der, &isRevoked, &data); err != nil {
				return err
			}
			return fn(rowOf(key, der, isRevoked, data))
		}, statement)
	})
}

func rowOf(key, der []byte, revoked bool, data []byte) *row {
	r := &row{key: key, der: der, revoked: revoked, data: data}
	if der == nil {
		r.err = errNoValue
	}
	if data == nil { // do not ask for it
		r.data = []byte{}
	}
	return r
}

// stream is query for the rows of certificates without package sql, which takes
// most of the time there is.
func (s *server) stream(ctx context.Context, w *watch, statement string, fn func(*row) error) error {
	return s.conn.Raw(func(driver any) error {
		w.begin()
		rows, err := driver.(*pgxstdlib.Conn).Conn().Query(ctx, statement)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			w.end()               // fn may take its time
			v := rows.RawValues() // in the binary format
			if err := fn(rowOf(v[0], v[1], slices.Equal(v[2], []byte{1}), v[3])); err != nil {
				s.end()
				return err
			}
			w.begin()
		}
		return rows.Err()
	})
}

func (s *server) scan(ctx context.Context, table string, values bool, fn func(key, value []byte) error) error {
	if !slices.Contains(s.tables, table) {
		return nil
	}
	column := "NULL"
	if values {
		column = bounded("nvalue")
	}
	return s.do(ctx, func(ctx context.Context, w *watch) error {
		var key, value sql.RawBytes
		return s.query(ctx, w, func(rows *sql.Rows) error {
			if err := rows.Scan(&key, &value); err != nil {
				return err
			}
			if values && value == nil {
				return errNoValue
			}
			return fn(key, value)
		}, "SELECT nkey, "+column+" FROM "+s.dialect.name(table))
	})
}

func (s *server) get(ctx context.Context, table, key string) (value []byte, err error) {
	if !slices.Contains(s.tables, table) {
		return nil, nil
	}
	found := false
	err = s.do(ctx, func(ctx context.Context, w *watch) error {
		return s.query(ctx, w, func(rows *sql.Rows) error {
			found = true
			return rows.Scan(&value)
		}, "SELECT "+bounded("nvalue")+" FROM "+s.dialect.name(table)+" WHERE nkey = "+s.dialect.parameter, []byte(key))
	})
	if err == nil && found && value == nil {
		err = errNoValue
	}
	return value, err
}

func (s *server) has(_ context.Context, table string) (bool, error) {
	return slices.Contains(s.tables, table), nil
}
