package database

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	pgxstdlib "github.com/jackc/pgx/v5/stdlib"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// connectTimeout is how long a database server may take to accept a connection.
const connectTimeout = 4 * time.Second

// muteMySQL keeps the log of the driver, which has one for the whole process, off
// standard error.
var muteMySQL = sync.OnceFunc(func() { _ = mysql.SetLogger(&mysql.NopLogger{}) })

// checkServer makes sure that the database exists on its server: package nosql
// would create it. It does nothing for a database in files.
func checkServer(cfg *db.Config, quiet bool) error {
	if InFiles(cfg) {
		return nil
	}
	if quiet { // the driver for MySQL logs to standard error, for package nosql too
		muteMySQL()
	}
	conn, err := connect(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	return ping(context.Background(), conn, connectTimeout)
}

// connect prepares connections to the database server. Its error shows nothing of
// the data source.
func connect(cfg *db.Config) (conn *sql.DB, err error) {
	if strings.EqualFold(cfg.Type, nosql.MySQLDriver) {
		conn, err = openMySQL(cfg)
	} else {
		conn, err = openPostgres(cfg)
	}
	if err != nil {
		return nil, errSource
	}
	return conn, nil
}

// errSource takes the place of an error whose text may hold the password.
var errSource = problem.New("the data source of the CA's database cannot be read").Hint(checkHint)

func openPostgres(cfg *db.Config) (*sql.DB, error) {
	source, err := pgx.ParseConfig(cfg.DataSource)
	if err != nil {
		return nil, err
	}
	if cfg.Database != "" {
		source.Database = cfg.Database
	}
	problem.Hide(source.Password)
	return pgxstdlib.OpenDB(*source), nil
}

func openMySQL(cfg *db.Config) (*sql.DB, error) {
	source, err := mysql.ParseDSN(cfg.DataSource)
	if err != nil {
		return nil, err
	}
	if cfg.Database != "" {
		source.DBName = cfg.Database
	}
	problem.Hide(source.Passwd)
	connector, err := mysql.NewConnector(source)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// ping connects to the server, and to the database on it, within the timeout.
func ping(ctx context.Context, conn *sql.DB, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := conn.PingContext(ctx)
	switch {
	case err == nil:
		return nil
	case isUnknownDatabase(err):
		return problem.New("the CA's database does not exist on its server").Hint(newCAHint)
	}
	return problem.New("the CA's database server: %w", problem.Cleaned(err))
}

// isUnknownDatabase recognizes invalid_catalog_name of PostgreSQL (appendix A of
// its manual) and ER_BAD_DB_ERROR of MySQL and MariaDB.
func isUnknownDatabase(err error) bool {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	return errors.As(err, &pg) && pg.Code == "3D000" || errors.As(err, &my) && my.Number == 1049
}

// A Room is how many bytes the record of a CRL may have, and the statement with
// which a database administrator makes more room. Without bytes there is no bound.
type Room struct {
	Bytes  int64
	Remedy string
}

// CRLRoom asks for the room that a CRL has. Only MySQL and MariaDB have a bound:
// step-ca makes a column of 64 KiB, unless somebody has changed its type, and
// sends the value twice in one packet (nosql, mysql.go, createTableQry and
// insertUpdateQry).
func CRLRoom(cfg *db.Config) (Room, error) {
	if !strings.EqualFold(cfg.Type, nosql.MySQLDriver) {
		return Room{}, nil
	}
	conn, err := connect(cfg)
	if err != nil {
		return Room{}, err
	}
	defer conn.Close()
	var column, packet int64
	err = conn.QueryRow("SELECT character_maximum_length, @@max_allowed_packet FROM information_schema.columns "+
		"WHERE table_schema = DATABASE() AND table_name = 'x509_crl' AND column_name = 'nvalue'").Scan(&column, &packet)
	if err != nil {
		return Room{}, problem.New("asking for the size of the CRL's column in the CA's database: %w", err)
	}
	return roomOf(column, packet), nil
}

// roomOf returns the room in a column and in packets of these sizes, in bytes.
func roomOf(column, packet int64) Room {
	const rest, mediumBlob = 1 << 10, 1<<24 - 1 // of a packet; type of a column
	switch twice := packet/2 - rest; {
	case twice < column:
		return Room{Bytes: twice, Remedy: "SET GLOBAL max_allowed_packet = 1073741824"}
	case column < mediumBlob:
		return Room{Bytes: column, Remedy: "ALTER TABLE x509_crl MODIFY nvalue MEDIUMBLOB"}
	}
	return Room{Bytes: column, Remedy: "ALTER TABLE x509_crl MODIFY nvalue LONGBLOB"}
}
