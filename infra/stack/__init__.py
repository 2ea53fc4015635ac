"""The real parts on this machine without Docker: Apache Kafka, PostgreSQL, a schema registry.

``python -m infra.stack up`` (or ``make stack``) starts them and says where they answer, ``down`` stops them. The tests
use the same code. Everything listens on free ports of 127.0.0.1 and lives in a directory of its own.

==============  =====================================================================================
``artifacts``   the JVM parts, fetched once by Maven into a cache
``java``        the Java that runs them
``child``       one process: started on a leash, ready by connecting, stopped in bounded time
``kafka``       one or three brokers (KRaft, broker and controller in one process)
``postgres``    a PostgreSQL, from a wheel or the system's
``registry``    Apicurio Registry, which speaks Confluent's API and really checks
``docker``      the same parts in containers, where an engine answers
``service``     a process of its own that runs parts until it is told to stop, or nobody uses them any more
==============  =====================================================================================
"""
