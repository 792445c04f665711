// Starts what serves one connection.
#pragma once
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>

#include "http/connection_pool.h"

namespace atelier::http {

namespace asio = boost::asio;

// Runs on the socket's executor until the connection ends. tls: null: none.
void run_session(asio::ip::tcp::socket socket, asio::ssl::context* tls, ConnectionPool& pool);

}  // namespace atelier::http
